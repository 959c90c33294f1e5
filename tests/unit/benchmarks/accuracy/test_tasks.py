"""Tasks are fair: test pictures are never trained on, and settings never see them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ship.backbone import Backbone
from tests.benchmarks.accuracy.problem import find_vtab
from tests.benchmarks.accuracy.sprites import draw_sprite
from tests.benchmarks.accuracy.suites import find_problem
from tests.benchmarks.accuracy.tasks import sprites


def as_bytes(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize("task", ["digits", "digits-odd-even", "digits-5-shot", "faces", "brick"])
def test_seeds_draw_training_pictures_and_leave_the_test_alone(task: str, backbone: Backbone) -> None:
    first, second = (find_problem(task, seed, backbone, {}) for seed in range(2))
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


def test_sprites_have_the_published_factors() -> None:
    centre = {"shape": 1, "scale": 5, "orientation": 0, "x": 16, "y": 16}
    left, right = (np.asarray(draw_sprite(**{**centre, "x": x})).sum(axis=0) for x in (0, 31))
    assert left.argmax() < 20 < 44 < right.argmax()
    small, large = (np.asarray(draw_sprite(**{**centre, "scale": scale})).sum() for scale in (0, 5))
    # Half the width, half the height.
    assert large / small == pytest.approx(4.0, rel=0.1)
    assert not np.array_equal(draw_sprite(**centre), draw_sprite(**{**centre, "orientation": 5}))
    assert np.array_equal(draw_sprite(**centre), draw_sprite(**{**centre, "orientation": 20}))
    for factor in ("x", "orientation"):
        assert len(set(sprites(factor, number=200)(0).train_labels)) == 16


def test_a_folder_without_vtab_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected VTAB-1k tasks"):
        find_vtab(tmp_path)
