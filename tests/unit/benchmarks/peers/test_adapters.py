"""The models of the servers under comparison answer as timm does with weights that are added up by hand."""

import pytest

from tests.benchmarks.serve.peers.adapters import MERGED_BYTES, MergedTask, fit_merged, open_tasks
from tests.benchmarks.serve.peers.knobs import Launch
from tests.benchmarks.serve.peers.scene import Scene, is_right


def test_rows_of_a_mixed_batch_are_answered_by_their_own_adapters(scene: Scene) -> None:
    model = open_tasks(scene.folder, scene.tasks, num_threads=1)
    keys = [(task, content) for content in scene.contents for task in (*scene.tasks, scene.tasks[0])]
    pixels = [model.pictures.decode(content) for _, content in keys]
    for key, reply in zip(keys, model.answer(pixels, [task for task, _ in keys]), strict=True):
        assert is_right(key[0], scene.theirs[key], tolerance=1e-5)(reply, {})


@pytest.mark.parametrize("place", [0, 2])
def test_a_single_task_is_merged_and_answers_alike(scene: Scene, place: int) -> None:
    task = scene.tasks[place]
    model = open_tasks(scene.folder, (task,), num_threads=1)
    assert isinstance(model, MergedTask)
    pixels = [model.pictures.decode(content) for content in scene.contents]
    for content, reply in zip(scene.contents, model.answer(pixels, [task] * len(pixels)), strict=True):
        assert is_right(task, scene.theirs[task, content], tolerance=1e-5)(reply, {})


@pytest.mark.parametrize("side", ["theirs", "ours"])
def test_references_differ_by_task_and_picture_so_that_a_mistaken_answer_shows(
    scene: Scene, side: str
) -> None:
    references = getattr(scene, side)
    assert len(references) == len(scene.tasks) * len(scene.contents)
    for (task, content), expected in references.items():
        assert sum(expected.values()) == pytest.approx(1.0, abs=1e-5)
        for other, answer in references.items():
            if other != (task, content):
                reply = {"task": task, "probabilities": dict(zip(expected, answer.values(), strict=True))}
                assert not is_right(task, expected)(reply, {})


def test_a_reply_of_another_task_or_other_labels_is_wrong() -> None:
    check = is_right("a", {"x": 0.25, "y": 0.75})
    right = {"task": "a", "probabilities": {"y": 0.7501, "x": 0.2499}}
    assert check(right, {})
    assert not check({**right, "task": "b"}, {})
    assert not check({**right, "probabilities": {"x": 0.25, "z": 0.75}}, {})
    assert not check({**right, "probabilities": [0.25, 0.75]}, {})
    assert not check({**right, "probabilities": {"x": 0.24, "y": 0.76}}, {})


def test_merged_models_are_kept_while_they_fit(launch: Launch, scene: Scene) -> None:
    size = (scene.folder / "backbone" / "model.safetensors").stat().st_size
    assert fit_merged(scene.folder, MERGED_BYTES // size)
    assert not fit_merged(scene.folder, MERGED_BYTES // size + 1)
