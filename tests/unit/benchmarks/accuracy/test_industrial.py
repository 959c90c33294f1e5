"""Industrial tasks are fair: the same test for every seed, never trained on, every kind in proportion."""

import io
from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from examples.industrial.pictures import Picture
from ship.backbone import Backbone
from tests.benchmarks.__main__ import main
from tests.benchmarks.accuracy.industrial import TASKS, choose, draw_pictures
from tests.benchmarks.accuracy.problem import make_problem
from tests.benchmarks.accuracy.suites import SUITES, source_of

KINDS = np.repeat(["fine", "hole", "stain"], [60, 40, 20])


def label_of(kind: str) -> str:
    return "good" if kind == "fine" else "defect"


def test_seeds_draw_training_pictures_and_leave_the_test_alone() -> None:
    (first, test), (second, again), (_, third) = (choose(KINDS, label_of, 12, 9, seed) for seed in range(3))
    assert test == again == third
    assert first != second
    for train in (first, second):
        assert not set(train) & set(test)
        assert Counter(KINDS[train]) == {"fine": 9, "hole": 6, "stain": 3}
    assert Counter(KINDS[test]) == {"fine": 12, "hole": 8, "stain": 4}


def test_a_task_may_train_on_all_that_are_left() -> None:
    train, test = choose(KINDS, label_of, 0.25, None, 0)
    assert sorted(train + test) == list(range(len(KINDS)))
    assert Counter(KINDS[test]) == {"fine": 15, "hole": 10, "stain": 5}


def test_files_are_decoded_in_the_size_that_the_backbone_sees(backbone: Backbone) -> None:
    pictures = []
    for number, kind in enumerate(KINDS):
        file = io.BytesIO()
        Image.new("L", (50, 40), number).save(file, "PNG")
        pictures.append(Picture(name=f"{number}.png", kind=str(kind), content=file.getvalue()))
    problem = make_problem(draw_pictures(pictures, label_of, 12, 10, 0), 0, backbone)
    assert problem.final.labels == ("good", "defect")
    assert problem.final.train.images_B3HW.shape == (20, 3, *backbone.image_size)
    assert problem.final.held_out.images_B3HW.unique().numel() == 24, "a grey level a picture"
    assert len(problem.search.held_out) == 4


def test_sources_are_those_of_the_pictures() -> None:
    assert {source_of(task) for task in TASKS} == {"solar", "textile", "extrusion", "microstructure"}
    assert {source_of(task) for task in SUITES["small"]} == {"digits", "faces", "surfaces", "sprites"}
    assert source_of("vtab-cifar") == "vtab-cifar"


def test_without_a_backbone_the_command_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError, match=r"python -m examples\.industrial\.backbone"):
        main(["accuracy", "--suite", "industrial", "--task", "solar"], standalone=False)
