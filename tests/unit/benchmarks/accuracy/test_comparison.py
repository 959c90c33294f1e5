"""The accuracy benchmark is fair: what is tested is never trained on, and settings never see it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks.__main__ import main
from tests.benchmarks.accuracy import comparison
from tests.benchmarks.accuracy.methods import ABLATIONS, METHODS, Effort, Fit
from tests.benchmarks.accuracy.tasks import TASKS, draw_sprite, find_vtab, make_problem
from tests.benchmarks.synthetic import find_backbone

BACKBONE = find_backbone("tiny", torch.device("cpu"))


def as_bytes(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize("task", ["digits", "digits-odd-even", "digits-5-shot", "faces", "brick"])
def test_seeds_draw_training_pictures_and_leave_the_test_alone(task: str) -> None:
    first, second = (make_problem(task, seed, BACKBONE, {}) for seed in range(2))
    test = first.final.held_out
    assert torch.equal(test.images_B3HW, second.final.held_out.images_B3HW)
    assert not torch.equal(first.final.train.images_B3HW, second.final.train.images_B3HW)
    assert len(first.final.train) <= 1000
    for problem in (first, second):
        assert not as_bytes(problem.final.train.images_B3HW) & as_bytes(test.images_B3HW)
        assert problem.search.test is None
        val = problem.search.held_out
        assert len(val) + len(problem.search.train) == len(problem.final.train)
        assert not set(val.paths) & set(problem.search.train.paths)
        assert set(problem.search.train.labels_B.tolist()) == set(range(len(problem.final.labels)))


def test_every_method_has_as_many_candidates() -> None:
    assert {len(candidates) for name, candidates in METHODS.items() if name != "linear"} == {4}


def test_sprites_have_the_published_factors() -> None:
    centre = {"shape": 1, "scale": 5, "orientation": 0, "x": 16, "y": 16}
    left, right = (np.asarray(draw_sprite(**{**centre, "x": x})).sum(axis=0) for x in (0, 31))
    assert left.argmax() < 20 < 44 < right.argmax()
    small, large = (np.asarray(draw_sprite(**{**centre, "scale": scale})).sum() for scale in (0, 5))
    # Half the width, half the height.
    assert large / small == pytest.approx(4.0, rel=0.1)
    assert not np.array_equal(draw_sprite(**centre), draw_sprite(**{**centre, "orientation": 5}))
    assert np.array_equal(draw_sprite(**centre), draw_sprite(**{**centre, "orientation": 20}))
    for task in ("sprites-location", "sprites-orientation"):
        assert len(set(TASKS[task](0).train_labels)) == 16


def test_settings_are_chosen_by_validation_and_seeds_only_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int, Effort]] = []

    def fit_all(_: Any, data: Any, __: str, candidates: list[Any], effort: Effort) -> list[Fit]:
        seen.append((data.test is None, len(candidates), effort))
        # The third has the best accuracy together with the fourth, and a lower loss.
        accuracies = [0.1, 0.2, 0.7, 0.7][: len(candidates)]
        return [Fit(accuracy=a, val_loss=float(i), num_trained=5) for i, a in enumerate(accuracies)]

    monkeypatch.setattr(comparison, "fit_all", fit_all)
    problems = [make_problem("faces", seed, BACKBONE, {}) for seed in range(2)]
    protocol = comparison.Protocol(
        backbone="tiny", device="cpu", seeds=2, num_steps=7, batch_size=3, precision="bfloat16", vtab={}
    )
    row = comparison.measure(BACKBONE, problems, "lora", protocol)
    assert row["settings"] == METHODS["lora"][2]
    assert seen == [
        (True, 4, Effort(seed=0, num_steps=4, batch_size=3, precision="bfloat16")),
        (False, 1, Effort(seed=0, num_steps=7, batch_size=3, precision="bfloat16")),
        (False, 1, Effort(seed=1, num_steps=7, batch_size=3, precision="bfloat16")),
    ]


def test_a_run_goes_on_from_its_file_and_refuses_another_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "accuracy.json"
    arguments = ["accuracy", "--quick", "--json", str(file), "--method"]
    main([*arguments, "linear"])
    main([*arguments, "linear", "--method", "ship", "--method", "vpt-deep", "--method", "full"])
    rows = json.loads(file.read_text())["rows"]
    assert [row["method"] for row in rows] == ["linear", "vpt-deep", "full", "ship"], "in the table's order"
    assert all(0.0 <= accuracy <= 1.0 for row in rows for accuracy in row["accuracies"])
    assert rows[2]["num_trained"] > BACKBONE.info.num_params > rows[3]["num_trained"] > rows[0]["num_trained"]
    assert "mean rank" in capsys.readouterr().err
    with pytest.raises(ValueError, match="name another file"):
        main([*arguments, "linear", "--seeds", "2"])


def test_presets_are_measured_beside_the_probe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["accuracy", "--quick", "--method", "preset quick", "--json"])
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["settings"] == {"preset": "quick"}
    assert row["num_trained"] > 0
    assert row["peak_bytes"] is None or row["peak_bytes"] > 0


def test_intervals_and_ranks() -> None:
    # t(2; 0.975) = 4.303
    assert comparison.interval([0.8, 0.9, 1.0]) == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
    assert math.isnan(comparison.interval([0.5]))
    rows = [
        {"task": task, "method": method, "accuracies": [value]}
        for task, values in {"a": (0.9, 0.8, 0.7), "b": (0.5, 0.5, 0.6)}.items()
        for method, value in zip("xyz", values, strict=True)
    ]
    assert comparison.mean_ranks(rows) == {"x": 1.75, "y": 2.25, "z": 2.0}
    unfinished = [*rows, {"task": "c", "method": "x", "accuracies": [1.0]}]
    assert comparison.mean_ranks(unfinished) == comparison.mean_ranks(rows)


def test_the_table_has_means_ranks_and_how_much_was_trained() -> None:
    rows = [
        {"task": task, "method": method, "accuracies": accuracies, "num_trained": number}
        for task, method, accuracies, number in (
            ("faces", "x", [1.0, 0.9], 10),
            ("brick", "x", [0.5, 0.5], 30),
            ("grass", "x", [0.7, 0.7], 20),
            ("faces", "y", [0.8, 0.8], 5),
        )
    ]
    words = {line[:22].strip(): line[22:].split() for line in comparison.render(rows).splitlines()}
    assert words["mean"] == ["0.717", "0.800"]
    assert words["mean of surfaces"] == ["0.600", "-"]
    assert words["mean rank"] == ["1.00", "2.00"]
    assert words["trained, median"] == ["20", "5"]


def test_an_unknown_name_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"task wood: expected one of digits, .*gravel"):
        main(["accuracy", "--quick", "--task", "wood"])
    with pytest.raises(FileNotFoundError, match="expected VTAB-1k tasks"):
        find_vtab(tmp_path)


def test_more_processes_find_the_same_and_draw_a_picture(tmp_path: Path) -> None:
    arguments = ["accuracy", "--quick", "--task", "faces", "--method", "linear", "--method", "ship", "--json"]
    found = []
    for jobs in ("1", "2"):
        file, picture = tmp_path / f"{jobs}.json", tmp_path / f"{jobs}.svg"
        main([*arguments, str(file), "--jobs", jobs, "--picture", str(picture)])
        found.append({row["method"]: row["accuracies"] for row in json.loads(file.read_text())["rows"]})
        text = picture.read_text()
        assert all(word in text for word in ("<svg", "faces", "linear", "ship", "mean rank"))
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ABLATIONS)
def test_each_part_of_ship_can_be_taken_away(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["accuracy", "--quick", "--method", method, "--json"])
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert 0.0 <= row["accuracies"][0] <= 1.0
    assert len(ABLATIONS[method]) == len(METHODS["ship"])
