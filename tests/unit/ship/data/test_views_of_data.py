"""Data that is loaded by a task's view."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ship.data import DataSource, TaskData, describe_data, inspect_data, load_task_data
from ship.errors import DataError
from ship.images import decode_image
from ship.settings.view import View

SIZE = (4, 5)


def load(path: Path, view: View, *, allow_duplicates: bool = False) -> TaskData:
    source = DataSource(path=str(path), allow_duplicates=allow_duplicates)
    return load_task_data(source, image_size=SIZE, interpolation="bicubic", view=view)


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


def test_deep_pictures_are_asked_about_or_read_by_the_tasks_bits(tmp_path: Path) -> None:
    for label, dark in (("good", 1000), ("bad", 1004)):
        (tmp_path / label).mkdir()
        for place in range(4):
            samples = np.full((6, 6), dark + place, np.uint16)
            Image.fromarray(samples).save(tmp_path / label / f"{place}.png")
    with pytest.raises(DataError, match=r"3\.png.*samples up to 1003 of 65535.*set `bits`"):
        load(tmp_path, View())
    with pytest.raises(DataError, match="as the backbone sees them, pixel for pixel what is trained on"):
        load(tmp_path, View(bits=10))
    data = load(tmp_path, View(bits=10), allow_duplicates=True)
    assert data.view.bits == 10
    assert 249 <= int(data.train.images_B3HW.min()) <= int(data.train.images_B3HW.max()) <= 251
    source = DataSource(path=str(tmp_path))
    assert len(inspect_data(source).unreadable) == 8
    assert inspect_data(source, bits=10).unreadable == {}


def test_the_limit_on_pixels_is_the_callers(split_tree: Path) -> None:
    source = DataSource(path=str(split_tree))
    with pytest.raises(DataError, match="more than the 4 that are allowed; SHIP_MAX_PIXELS sets another"):
        load_task_data(source, image_size=SIZE, interpolation="bicubic", max_pixels=4)
    assert inspect_data(source, max_pixels=4).images == ()
