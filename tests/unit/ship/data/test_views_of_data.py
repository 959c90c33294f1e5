"""Data that is loaded by a task's view."""

from pathlib import Path

import pytest
import torch

from ship.data import DataSource, TaskData, describe_data, load_task_data
from ship.errors import DataError
from ship.images import decode_image
from ship.settings.view import View

SIZE = (4, 5)


def load(path: Path, view: View) -> TaskData:
    return load_task_data(DataSource(path=str(path)), image_size=SIZE, interpolation="bicubic", view=view)


def test_each_image_is_seen_by_the_view(split_tree: Path) -> None:
    view = View(tiles="2x1", crop=(0.0, 0.0, 0.5, 1.0))
    data = load(split_tree, view)
    assert data.view == view
    assert data.num_tiles == 2
    assert data.train.images_B3HW.shape == (6, 2, 3, *SIZE)
    for image, path in zip(data.train.images_B3HW, data.train.paths, strict=True):
        assert torch.equal(image, decode_image((split_tree / path).read_bytes(), size=SIZE, view=view))
    assert data.fingerprint == load(split_tree, View()).fingerprint, "the data is the same"


def test_auto_tiles_are_settled_by_the_training_pictures(split_tree: Path) -> None:
    sizes = describe_data(DataSource(path=str(split_tree))).sizes
    assert 0 < len(sizes) <= 6
    expected = View(tiles="auto").resolved(sizes, SIZE)
    data = load(split_tree, View(tiles="auto"))
    assert data.view == expected
    assert data.num_tiles == expected.num_tiles


def test_a_picture_that_does_not_hold_the_crop_is_named(split_tree: Path) -> None:
    with pytest.raises(DataError, match=r"cat.*reaches to 9999"):
        load(split_tree, View(crop=(0, 0, 9999, 2)))


def test_images_of_other_tiles_than_the_views_are_refused(split_tree: Path) -> None:
    data = load(split_tree, View(tiles="2x2"))
    with pytest.raises(DataError, match="images of 4 tiles: the view has 1"):
        TaskData(labels=data.labels, train=data.train, val=None, test=data.test, fingerprint="")
