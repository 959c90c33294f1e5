"""Bounds on the work of decoding: bombs of each format are refused unread, honest files of all kinds pass."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ship.errors import ImageError
from ship.images import ALLOWED_FORMATS
from ship.images.decoding import decode_pixels, read_size
from ship.images.work import MAX_SCANS, check_work

TIFF_KINDS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "group4", "jpeg", "lzma", "zstd")
HOW: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"icc_profile": b"\xff\xda" * 200}],
    "PNG": [{}, {"compress_level": 0}, {"icc_profile": b"x"}],
    "WEBP": [{}, {"lossless": True}],
    "BMP": [{}],
    "TIFF": [{"compression": kind} for kind in TIFF_KINDS] + [{"big_tiff": True}],
}


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("format_", ALLOWED_FORMATS)
def test_what_encoders_write_passes(format_: str) -> None:
    num_checked = 0
    for size in ((1, 1), (7, 5), (600, 400)):
        for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "F"):
            for how in HOW[format_]:
                file = io.BytesIO()
                try:
                    noise(mode, size).save(file, format_, **how)
                except (OSError, ValueError, RuntimeError):
                    # A mode that the format does not have.
                    continue
                check_work(file.getvalue(), format_)
                num_checked += 1
    assert num_checked >= 9


def progressive(num_scans: int) -> bytes:
    """A JPEG with its last scan as often as that makes so many."""
    file = io.BytesIO()
    noise("L", (16, 16)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    start = content.rindex(b"\xff\xda")
    return content[:-2] + content[start:-2] * (num_scans - content.count(b"\xff\xda")) + content[-2:]


@pytest.mark.parametrize("read", [read_size, lambda content: decode_pixels(content, size=(8, 8))])
def test_scans_are_counted_for_serving_tuning_and_sizes(read: Callable[[bytes], Any]) -> None:
    read(progressive(MAX_SCANS))
    with pytest.raises(ImageError, match="found 101 scans or more, expected at most 100") as caught:
        read(progressive(MAX_SCANS + 1))
    assert caught.value.kind == "too_costly"


def test_scans_behind_the_picture_are_no_work() -> None:
    """Such as a film after its first picture, as telephones store it."""
    behind = progressive(200)[2:]
    check_work(progressive(10) + behind, "JPEG")
    with pytest.raises(ImageError, match="scans"):
        check_work(b"\xff\xd8" + behind, "JPEG")


def test_scans_behind_fill_bytes_and_garbage_are_counted() -> None:
    bomb = progressive(101)
    for written in (b"\xff\xff\xff\xda", b"garbage\xff\xda", b"\xff\xd0\xff\xda", b"\xff\x01\xff\xda"):
        with pytest.raises(ImageError, match="scans"):
            check_work(bomb.replace(b"\xff\xda", written), "JPEG")


@pytest.mark.parametrize("format_", ALLOWED_FORMATS)
def test_no_file_that_is_cut_or_changed_breaks_the_check(format_: str) -> None:
    """It passes, or is refused as costly; whatever else is wrong with it is its decoder's to say."""
    file = io.BytesIO()
    noise("RGB", (64, 48)).save(file, format_)
    content, random = file.getvalue(), np.random.default_rng(0)
    for length in range(16, min(len(content), 400)):
        check_work(content[:length], format_)
    kinds = set()
    for _ in range(2000):
        changed = bytearray(content)
        for place in random.integers(8, min(len(content), 300), 4):
            changed[place] = random.integers(256)
        try:
            check_work(bytes(changed), format_)
        except ImageError as error:
            kinds.add(error.kind)
    assert kinds <= {"too_costly"}
