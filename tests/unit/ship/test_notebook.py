"""The face for notebooks: five lines from a folder of images to an answer."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ship
from ship.artifact import load as load_artifact
from ship.backbone import Backbone
from ship.errors import ArtifactError, BackboneError, ConfigError, DataError, ImageError, ShipError
from ship.images import read_image
from ship.runtime import Runtime
from ship.settings.view import View
from tests.unit.ship.factory import QUICK, draw_stripes, make_backbone, make_data

SETTINGS = {**QUICK, "epochs": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes as an image folder."""
    root = tmp_path_factory.mktemp("stripes")
    split = draw_stripes(24, 3, seed=0)
    for path, image_3HW, label in zip(split.paths, split.images_B3HW, split.labels_B.tolist(), strict=True):
        target = root / f"class-{label}" / path
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(target)
    return root


@pytest.fixture(scope="module")
def tuned(folder: Path, backbone: Backbone) -> ship.TunedTask:
    return ship.tune(folder, backbone, progress=False, **SETTINGS)


@pytest.fixture(scope="module")
def saved(tuned: ship.TunedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("artifacts") / "stripes"
    tuned.save(target)
    return target


def test_a_saved_task_answers_as_the_runtime_does(
    tuned: ship.TunedTask, saved: Path, folder: Path, backbone: Backbone
) -> None:
    path = folder / "class-1" / "1.png"
    pixels = np.asarray(Image.open(path))
    images = [path, str(path), path.read_bytes(), Image.open(path), pixels]

    model = ship.load(saved, backbone)
    answers = model.predict(images)

    runtime = Runtime(backbone, capacity_bytes=1 << 20)
    image_3HW = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    [logits_C] = runtime.infer(image_3HW[None], [runtime.insert(tuned.result.prompt)])
    shares = (logits_C.double() / model.rule.temperature).softmax(dim=0).tolist()
    for answer in answers:
        assert answer.probabilities == pytest.approx(
            dict(zip(tuned.data.labels, shares, strict=True)), abs=1e-6
        )
        assert list(answer.probabilities.values()) == sorted(answer.probabilities.values(), reverse=True)
        assert (answer.label, answer.probability) == next(iter(answer.probabilities.items()))
    assert len(answers) == 5
    assert answers[0].label == "class-1"


def test_a_picture_like_no_training_image_is_answered_unsure(
    tuned: ship.TunedTask, saved: Path, folder: Path, backbone: Backbone
) -> None:
    model = ship.load(saved, backbone)
    rule = model.rule
    assert rule == load_artifact(saved).card.decision
    strange = np.zeros((32, 32, 3), np.uint8)
    strange[::2] = 255
    known, other = model.predict([folder / "class-1" / "1.png", strange])
    assert known.decision == known.label == "class-1"
    assert known.distance <= rule.max_distance < other.distance
    assert (other.decision, other.because) == ("unsure", "far")
    # A task that was not saved yet answers alike, and another rule otherwise.
    again = tuned.model().predict(strange)[0]
    assert (again.decision, again.distance) == ("unsure", pytest.approx(other.distance, rel=1e-4))
    assert tuned.model().rule is tuned.fitted.rule
    assert rule == tuned.fitted.rule
    model.rule = replace(rule, max_distance=None, min_confidence=1.0)
    found = model.predict(folder / "class-1" / "1.png")[0]
    assert (found.label, found.decision, found.because) == ("class-1", "unsure", "confidence")


def test_one_image_and_a_stack_of_images_are_asked_about_alike(
    tuned: ship.TunedTask, backbone: Backbone
) -> None:
    model = tuned.model()
    stack = tuned.data.held_out.images_B3HW.permute(0, 2, 3, 1).numpy()
    found = model.predict(stack)
    assert len(found) == len(stack)
    assert model.predict(stack[0])[0].probabilities == pytest.approx(found[0].probabilities, abs=1e-6)
    correct = [
        answer.label == tuned.data.labels[label]
        for answer, label in zip(found, tuned.data.held_out.labels_B.tolist(), strict=True)
    ]
    assert sum(correct) / len(correct) == tuned.result.evaluation.accuracy
    assert model.backbone is backbone


def test_an_artifact_of_a_notebook_has_no_task_key(saved: Path) -> None:
    loaded = load_artifact(saved)
    assert (loaded.card.task, loaded.card.task_key) == ("stripes", None)


def test_a_name_that_no_task_can_have_is_refused_before_anything_is_written(
    tuned: ship.TunedTask, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="task: expected a name"):
        tuned.save(tmp_path / ("long" * 20))
    assert list(tmp_path.iterdir()) == []


def test_data_in_memory_is_tuned_as_it_is(backbone: Backbone) -> None:
    data = make_data()
    found = ship.tune(data, backbone, progress=False, **{**SETTINGS, "epochs": 1})
    assert found.data is data
    assert "standard error" in found.search.reason
    with pytest.raises(DataError, match=r"images of \(32, 32\) pixels: backbone 'bundled' expects"):
        ship.tune(data, progress=False, epochs=1)


def test_a_prompt_that_is_worse_than_its_probe_gives_way_to_it(backbone: Backbone) -> None:
    data = make_data(48, num_classes=2)
    settings = {**SETTINGS, "epochs": 1, "start": "published", "fallback": False}
    tuned = ship.tune(data, backbone, progress=False, **settings)
    assert tuned.result.prompt.config.kind == "probe"
    assert tuned.instead_of is tuned.result.instead_of is not None
    assert "raise epochs" in repr(tuned)
    kept = ship.tune(data, backbone, progress=False, **{**SETTINGS, "fallback": False})
    assert (kept.result.prompt.config.kind, kept.result.instead_of) == ("ship", None)


def test_auto_is_searched_and_validation_images_are_trained_on_at_last(backbone: Backbone) -> None:
    settings = {**SETTINGS, "epochs": 1, "kind": "auto", "head": "auto"}
    found = ship.tune(make_data(num_val=6), backbone, progress=False, **settings)

    assert {trial.settings["kind"] for trial in found.search.trials} >= {"probe", "ship", "lora", "ship+lora"}
    assert found.result.prompt.config == found.search.config
    assert (len(found.data.train), found.data.val) == (30, None)
    patient = ship.tune(
        make_data(num_val=6), backbone, progress=False, patience=1, **{**SETTINGS, "epochs": 1}
    )
    assert (len(patient.data.train), patient.data.val is None) == (24, False)


def test_settings_are_checked_by_name(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="epoch: unknown setting; known are"):
        ship.tune("nowhere", backbone, epoch=3)
    with pytest.raises(ConfigError, match="preset: expected one of quick, balanced, best, got 'fast'"):
        ship.tune(make_data(), backbone, preset="fast", progress=False)


def test_the_public_names_are_listed() -> None:
    assert {"tune", "load", "load_backbone", "TunedTask"} <= set(dir(ship)) == set(ship.__all__)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_if_asked_for(
    folder: Path, backbone: Backbone, progress: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ship.tune(folder, backbone, progress=progress, **{**SETTINGS, "epochs": 2})
    shown = capsys.readouterr().err
    assert ("24/24" in shown, "2/2" in shown, "accuracy=" in shown) == (progress,) * 3


def test_every_image_that_cannot_be_read_is_named(tuned: ship.TunedTask) -> None:
    model = tuned.model()
    good = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ImageError) as refused:
        model.predict([good, b"no image", good, 3])
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["image 1", "image 3"]
    with pytest.raises(ImageError, match="no image was given"):
        model.predict([])


def test_another_backbone_is_refused(saved: Path) -> None:
    with pytest.raises(ArtifactError, match="belongs to backbone 'tiny'"):
        ship.load(saved, make_backbone(seed=1))
    with pytest.raises(BackboneError, match="the artifact names its backbone 'tiny'; pass it as `backbone`"):
        ship.load(saved)


def test_reprs_are_one_short_line(tuned: ship.TunedTask, backbone: Backbone) -> None:
    runtime = Runtime(backbone, capacity_bytes=1 << 20)
    slot = runtime.insert(tuned.result.prompt)
    model = tuned.model()
    answer = model.predict(np.zeros((8, 8, 3), np.uint8))[0]
    things = [tuned, tuned.data, tuned.data.train, tuned.result, tuned.result.prompt, backbone, runtime, slot]
    for thing in [*things, model, answer]:
        text = repr(thing)
        assert text.startswith(type(thing).__name__ + "("), text
        assert len(text) < 200, text
        assert "\n" not in text
    assert repr(tuned.data) == "TaskData(3 classes, 18 train, 6 test)"
    assert repr(slot) == f"Slot(5 static prompt tokens, 3 classes, {slot.num_bytes} bytes)"


def test_a_plot_shows_levels_curve_and_confusion(tuned: ship.TunedTask) -> None:
    figure = tuned.plot()
    affinity, curve, confusion, *_ = figure.get_axes()
    assert len(affinity.get_lines()) == 2 * (tuned.result.prompt.num_levels - 1)
    assert list(curve.get_lines()[0].get_ydata()) == [report.loss for report in tuned.result.history]
    counts = [int(text.get_text()) for text in confusion.texts]
    assert counts == [number for row in tuned.result.evaluation.confusion_CC for number in row]
    assert [label.get_text() for label in confusion.get_xticklabels()] == list(tuned.data.labels)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_a_plot_says_what_to_install(
    tuned: ship.TunedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ship.plot", None)
    with pytest.raises(ShipError, match=r"pip install 'ship-prompts\[plot\]'"):
        tuned.plot()


def test_the_face_loads_without_what_it_does_not_need_yet() -> None:
    code = (
        "import sys, ship, ship.settings.config, ship.errors; assert ship.__version__;"
        "print({'torch', 'timm', 'numpy', 'PIL', 'tqdm', 'matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    assert set(ship.__all__) <= {*dir(ship), *ship.__all__}
    for name in ship.__all__:
        assert getattr(ship, name) is not None
    with pytest.raises(AttributeError, match="module 'ship' has no attribute 'tun'"):
        ship.tun  # noqa: B018 - the lookup is what is tested


def test_a_task_with_a_view_is_answered_with_it(folder: Path, backbone: Backbone, tmp_path: Path) -> None:
    view = {"tiles": "1x2", "tile_overlap": 0.0, "crop": [0, 0, 32, 32]}
    tuned = ship.tune(folder, backbone, view=view, progress=False, **{**SETTINGS, "epochs": 1})
    tuned.save(tmp_path / "halves")
    card = load_artifact(tmp_path / "halves").card
    assert card.view == tuned.data.view == View.from_dict(view)
    model = ship.load(tmp_path / "halves", backbone)
    path = folder / "class-1" / "1.png"
    [found], [again] = model.predict(path), tuned.model().predict(path)
    assert found.probabilities == pytest.approx(again.probabilities, abs=1e-6)
    runtime = Runtime(backbone, capacity_bytes=1 << 20)
    image_3HW = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)
    halves = [read_image(half.permute(1, 2, 0).numpy(), size=(32, 32)) for half in image_3HW.split(16, dim=2)]
    [logits_C] = runtime.infer(torch.stack(halves), [runtime.insert(tuned.result.prompt)])
    shares_C = (logits_C.double() / card.decision.temperature).softmax(dim=0)
    shares = dict(zip(tuned.data.labels, shares_C.tolist(), strict=True))
    assert found.probabilities == pytest.approx(shares, abs=1e-6)


def test_a_backbone_of_another_image_size_is_found_by_the_artifact(folder: Path, tmp_path: Path) -> None:
    tuned = ship.tune(folder, image_size=32, progress=False, **{**SETTINGS, "epochs": 1})
    assert tuned.backbone.image_size == (32, 32)
    tuned.save(tmp_path / "small")
    model = ship.load(tmp_path / "small")
    assert model.backbone.fingerprint == tuned.backbone.fingerprint
    with pytest.raises(ArtifactError, match="belongs to backbone 'bundled'"):
        ship.load(tmp_path / "small", ship.load_backbone("bundled"))
