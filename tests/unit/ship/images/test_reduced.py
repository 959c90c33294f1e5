"""JPEGs that are decoded at a reduced size: what is seen stays, and what cannot be is read in full."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from ship.errors import ImageError
from ship.images.decoding import decode_pixels
from ship.settings.view import View

INPUT = (48, 48)
# What rounding and another filter make of it, of 255; another place of the picture is tens away.
CLOSE, MEAN_CLOSE = 6, 0.6


def draw(size: tuple[int, int]) -> Image.Image:
    """Soft shapes: what a small input can show at all."""
    shapes = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return Image.fromarray(shapes).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, format_: str = "JPEG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    image.save(file, format_, exif=exif)
    return file.getvalue()


def both(content: bytes, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The input by a view that decodes in full, and by one that does not."""
    views = [View(decode=decode, **settings) for decode in ("full", "reduced")]
    full, reduced = (decode_pixels(content, size=INPUT, view=view).astype(int) for view in views)
    return full, reduced


def assert_close(full: np.ndarray, reduced: np.ndarray) -> None:
    assert np.abs(full - reduced).max() <= CLOSE
    assert np.abs(full - reduced).mean() <= MEAN_CLOSE
    assert not np.array_equal(full, reduced), "it was decoded in full"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crop": (101, 43, 397, 302)},
        {"crop": (0.5, 0.5, 0.5, 0.5)},
        {"tiles": "2x2", "tile_overlap": 0.2},
        {"fit": "pad"},
        {"fit": "crop"},
    ],
    ids=str,
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_is_seen_stays(settings: dict[str, Any], orientation: int) -> None:
    size = (800, 608) if orientation != 6 else (608, 800)
    assert_close(*both(encode(draw(size), orientation=orientation), **settings))


@pytest.mark.parametrize(
    ("size", "input_size", "settings", "by"),
    [
        ((640, 480), (48, 48), {}, 4),
        ((640, 480), (224, 224), {}, 1),
        ((1600, 1200), (224, 224), {}, 2),
        ((4000, 3000), (48, 48), {}, 8),
        ((4000, 3000), (224, 224), {"crop": (0, 0, 500, 500)}, 1),
        ((4000, 3000), (224, 224), {"tiles": "3x3"}, 2),
        ((40, 30), (48, 48), {}, 1),
        # Half a pixel would be left over.
        ((1604, 1200), (48, 48), {}, 4),
        ((1602, 1201), (48, 48), {}, 1),
    ],
)
def test_a_tile_stays_twice_as_large_as_the_input(
    size: tuple[int, int], input_size: tuple[int, int], settings: dict[str, Any], by: int
) -> None:
    assert View(decode="reduced", **settings).reduction(size, input_size) == by
    assert View(**settings).reduction(size, input_size) == 1


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_formats_are_read_in_full(format_: str) -> None:
    full, reduced = both(encode(draw((640, 480)), format_))
    assert np.array_equal(full, reduced)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printers_colours_are_reduced_too(mode: str) -> None:
    assert_close(*both(encode(draw((640, 480)).convert(mode))))


def test_a_crop_is_of_the_picture_as_it_is() -> None:
    with pytest.raises(ImageError, match="640 x 480 pixels: crop"):
        both(encode(draw((640, 480))), crop=(600, 0, 80, 80))
