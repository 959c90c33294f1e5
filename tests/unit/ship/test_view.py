"""A task's view of its pictures: the right pixels, by construction."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ship.errors import ConfigError, ImageError
from ship.images import read_image
from ship.settings.view import DEFAULT_VIEW, View

SIZE = (4, 6)  # Height and width of the network's input.


def picture(height: int, width: int) -> np.ndarray:
    """Every pixel says where it is: red its column, green its row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def seen(array: np.ndarray, view: View, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return read_image(array, size=size, interpolation="nearest", view=view)


def as_planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def test_the_default_view_is_the_whole_picture() -> None:
    array = picture(40, 30)
    without = read_image(array, size=SIZE)
    assert torch.equal(read_image(array, size=SIZE, view=DEFAULT_VIEW), without)
    assert without.shape == (3, *SIZE)
    assert torch.equal(seen(picture(*SIZE), DEFAULT_VIEW), as_planes(picture(*SIZE)))


@pytest.mark.parametrize("crop", [[10, 20, 6, 4], [1 / 3, 0.5, 0.2, 0.1]], ids=["pixels", "shares"])
def test_a_crop_shows_its_pixels_alone(crop: list[float]) -> None:
    array = picture(40, 30)
    found = seen(array, View(crop=crop))  # type: ignore[arg-type]
    assert torch.equal(found, as_planes(array[20:24, 10:16]))


def test_a_filter_does_not_look_beyond_a_crop() -> None:
    array = np.zeros((40, 30, 3), dtype=np.uint8)
    array[8:32, 6:24] = 255
    found = read_image(array, size=SIZE, view=View(crop=(6, 8, 18, 24)))
    assert bool((found == 255).all())


def test_tiles_cover_the_crop_row_by_row() -> None:
    array = picture(40, 30)
    found = seen(array, View(crop=(2, 4, 12, 8), tiles="2x2", tile_overlap=0.0))
    assert found.shape == (4, 3, *SIZE)
    for tile, (top, left) in zip(found, [(4, 2), (4, 8), (8, 2), (8, 8)], strict=True):
        assert torch.equal(tile, as_planes(array[top : top + 4, left : left + 6]))


@pytest.mark.parametrize("overlap", [0.0, 0.001, 0.01, 0.1])
def test_no_pixel_is_between_two_tiles(overlap: float) -> None:
    for number in (2, 3, 5, 8):
        view = View(tiles=f"1x{number}", tile_overlap=overlap)
        for side in (*range(16, 300), 1000, 1027, 1081):
            ends = [tile.source for tile in view.tiles_of((side, 10), SIZE)]
            assert (ends[0][0], ends[-1][2]) == (0, side)
            assert all(left[2] >= right[0] for left, right in pairwise(ends)), (side, number)


def test_tiles_overlap_and_end_where_the_picture_does() -> None:
    tiles = View(tiles="1x3", tile_overlap=0.25).tiles_of((100, 10), SIZE)
    assert [tile.source for tile in tiles] == [(0, 0, 40, 10), (30, 0, 70, 10), (60, 0, 100, 10)]


def test_padding_keeps_the_aspect_ratio_on_grey() -> None:
    found = seen(np.full((8, 4, 3), 200, dtype=np.uint8), View(fit="pad"))
    assert bool((found[:, :, 2:4] == 200).all())
    assert bool((found[:, :, :2] == 128).all())
    assert bool((found[:, :, 4:] == 128).all())


def test_cropping_to_the_aspect_ratio_cuts_both_ends_alike() -> None:
    array = picture(4, 12)
    assert torch.equal(seen(array, View(fit="crop")), as_planes(array[:, 3:9]))


def test_a_picture_that_does_not_hold_the_crop_is_refused() -> None:
    with pytest.raises(ImageError, match=r"30 x 40 pixels: crop .* reaches to 40 x 24") as caught:
        seen(picture(40, 30), View(crop=(10, 20, 30, 4)))
    assert caught.value.kind == "too_small"


@pytest.mark.parametrize(
    ("size", "grid"),
    [((48, 48), "1x1"), ((96, 96), "1x1"), ((97, 40), "1x2"), ((250, 250), "3x3"), ((9000, 9000), "3x3")],
)
def test_auto_takes_as_many_tiles_as_halve_at_most(size: tuple[int, int], grid: str) -> None:
    assert View(tiles="auto").resolved([size], (48, 48)).tiles == grid


def test_auto_goes_by_the_median_and_by_the_crop() -> None:
    sizes = [(10, 10), (250, 250), (250, 250)]
    assert View(tiles="auto").resolved(sizes, (48, 48)).tiles == "3x3"
    assert View(tiles="auto", crop=(0, 0, 100, 20)).resolved(sizes, (48, 48)).tiles == "1x2"
    assert View(tiles="2x3").resolved([], (48, 48)).num_tiles == 6


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"crop": [0, 0, 1]}, "crop"),
        ({"crop": [0, 0, 0, 1]}, "crop"),
        ({"crop": [0.5, 0, 0.6, 1]}, "crop"),
        ({"crop": [-1, 0, 5, 5]}, "crop"),
        ({"crop": "all"}, "crop"),
        ({"tiles": "2"}, "tiles"),
        ({"tiles": 4}, "tiles"),
        ({"tiles": "9x9"}, "of at most 64"),
        ({"tile_overlap": 0.6}, "tile_overlap"),
        ({"fit": "stretch"}, "fit"),
        ({"decode": "fast"}, "decode"),
        ({"tile": "2x2"}, "tile: unknown setting"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        View.from_dict(settings)


def test_a_view_survives_json() -> None:
    view = View(crop=(0.0, 0.1, 0.5, 0.5), tiles="2x3", tile_overlap=0.2, fit="pad")
    assert View.from_dict(view.to_dict()) == view
    assert View.from_dict(DEFAULT_VIEW.to_dict()) == DEFAULT_VIEW
    assert "decode" not in view.to_dict(), "earlier releases know no such setting"
    reduced = View(decode="reduced")
    assert View.from_dict(reduced.to_dict()) == reduced
    assert not reduced.is_default
    assert reduced.is_whole


def test_shrinking_beyond_a_third_is_told_unless_the_view_makes_it_moot() -> None:
    sizes = [(250, 250)]
    message = DEFAULT_VIEW.find_shrinking(sizes, (48, 48))
    assert message is not None
    assert message.startswith("pictures of 250 x 250 are shrunk to 48 x 48 pixels: small defects may vanish")
    assert DEFAULT_VIEW.find_shrinking([(144, 144)], (48, 48)) is None
    assert DEFAULT_VIEW.find_shrinking([(145, 48)], (48, 48)) is not None
    assert DEFAULT_VIEW.find_shrinking(sizes, (96, 96)) is None
    assert View(tiles="2x2").find_shrinking(sizes, (48, 48)) is None
    assert View(tiles="auto").find_shrinking(sizes, (48, 48)) is None
    assert View(crop=(50, 50, 100, 100)).find_shrinking(sizes, (48, 48)) is None
    beyond = View(crop=(50, 50, 300, 100)).find_shrinking(sizes, (48, 48))
    assert beyond is not None
    assert "reaches to 350" in beyond
