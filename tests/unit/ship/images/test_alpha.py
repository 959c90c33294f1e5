"""Transparency: white where there is some, and none at all where alpha is 0 everywhere."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.ship.images.factory import Array, bmp, chunk, png, shown, smooth, tiff

RGB = smooth(20, 30, 3, 255).astype(np.uint8)
DEEP_RGB = RGB.astype(np.uint16) * 257
GREY = RGB[..., 0]
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def with_alpha(pixels: Array, alpha: int) -> Array:
    return np.dstack([pixels, np.full(pixels.shape[:2], alpha, pixels.dtype)])


def webp(alpha: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(with_alpha(RGB, alpha)).save(file, "WEBP", lossless=True, exact=True)
    return file.getvalue()


def of_tiff(pixels: Array, alpha: int, kind: str, **how: Any) -> bytes:
    photometric = "minisblack" if pixels.ndim == 2 else "rgb"
    return tiff(with_alpha(pixels, alpha), photometric=photometric, extrasamples=[kind], **how)


def paletted(alpha: int, number: int) -> bytes:
    plte = chunk(b"PLTE", PALETTE.tobytes())
    return png(GREY, 8, 3, extra=[plte, chunk(b"tRNS", bytes([alpha] * number))])


# By a writer that takes the alpha of all pixels.
UNUSED = {
    "bmp": (lambda alpha: bmp(with_alpha(RGB, alpha), 32, compression=3, masks=MASKS), RGB),
    "bmp without masks": (lambda alpha: bmp(with_alpha(RGB, alpha), 32), RGB),
    "png": (lambda alpha: png(with_alpha(RGB, alpha), 8, 6), RGB),
    "png of 16 bits": (lambda alpha: png(with_alpha(DEEP_RGB, alpha), 16, 6), RGB),
    "grey png": (lambda alpha: png(with_alpha(GREY, alpha), 8, 4), GREY),
    "grey png of 16 bits": (lambda alpha: png(with_alpha(DEEP_RGB[..., 0], alpha), 16, 4), GREY),
    "palette": (lambda alpha: paletted(alpha, 256), PALETTE[GREY]),
    "webp": (webp, RGB),
    "tiff": (lambda alpha: of_tiff(RGB, alpha, "unassalpha"), RGB),
    "tiff, premultiplied": (lambda alpha: of_tiff(RGB, alpha, "assocalpha"), RGB),
    "packed tiff, premultiplied": (lambda alpha: of_tiff(RGB, alpha, "assocalpha", compression="lzw"), RGB),
    "tiff of 16 bits": (lambda alpha: of_tiff(DEEP_RGB, alpha, "unassalpha"), RGB),
    "tiff of 16 bits, premultiplied": (lambda alpha: of_tiff(DEEP_RGB, alpha, "assocalpha"), RGB),
    "grey tiff": (lambda alpha: of_tiff(GREY, alpha, "unassalpha"), GREY),
    "grey tiff, premultiplied": (lambda alpha: of_tiff(GREY, alpha, "assocalpha"), GREY),
}


@pytest.mark.parametrize("form", UNUSED)
def test_alpha_that_is_0_everywhere_is_no_transparency(form: str) -> None:
    write, pixels = UNUSED[form]
    colours = np.broadcast_to(pixels.reshape(20, 30, -1), (20, 30, 3))
    assert np.array_equal(shown(write(0)), colours)


def test_a_picture_of_one_transparent_colour_is_that_colour() -> None:
    for depth, colour, channels in ((8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3)):
        top = 2**depth - 1
        samples = np.full((4, 5, channels), top // 2 + 1, dtype=np.uint16)
        content = png(samples, depth, colour, extra=[chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())])
        assert np.unique(shown(content)).tolist() == [128]


def test_one_pixel_that_is_seen_makes_the_others_transparent() -> None:
    for content in (bmp(one_seen(), 32, compression=3, masks=MASKS), png(one_seen(), 8, 6)):
        found = shown(content)
        assert np.array_equal(found[3, 4], RGB[3, 4])
        found[3, 4] = 255
        assert found.min() == 255


def one_seen() -> Array:
    pixels = with_alpha(RGB, 0)
    pixels[3, 4, 3] = 255
    return pixels
