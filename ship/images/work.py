"""Bounds on the work that an image file can ask of a decoder, checked by its structure before it is decoded.

A file of kilobytes can repeat a scan thousands of times, or point thousands of strips at the same bytes, so
that pixels bound memory and not time. Each format's repetitions are counted here, in time that grows with the
file's length alone. A file that ends early, or is broken in another way, passes: its decoder says so.
"""

import re
import struct
from collections.abc import Iterator, Mapping

from ship.errors import ImageError
from ship.images.jpeg import EOI, MARKER, SOS, WITHOUT_LENGTH
from ship.images.tiff import COMPRESSION, HEIGHT, TILE_HEIGHT, TILE_WIDTH, WIDTH, Tag, read_numbers, read_tags

__all__ = ["MAX_SCANS", "check_work"]

# Of a JPEG. libjpeg's progressive script has 10, an optimizer that tries scripts ends below 30; libtiff
# refuses more than 100 as well.
MAX_SCANS = 100
# Of a PNG or WebP. Encoders write blocks of 8 KiB and more; a camera's line-wise ones are still above this.
_MIN_CHUNK_BYTES, _FREE_CHUNKS = 256, 1000
# Notes of a PNG, which no decoder sees: passing one over takes a microsecond.
_MAX_NOTES = 20_000
# Of an animated WebP, of which only the first is decoded.
_MAX_FRAMES = 1000
# Of a TIFF's page. Writers need a strip a row at most.
_MAX_SEGMENTS = 100_000
# A tile may be larger than the picture, but not by much.
_FREE_TILE_PIXELS = 1 << 22

_END_OF_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_SEGMENT_OFFSETS, _SEGMENT_LENGTHS, _JPEG_IN_TIFF = (273, 324), (279, 325), (6, 7)


def check_work(content: bytes, format_: str) -> None:
    """Refuse a file that repeats work.

    Args:
        content: The file's bytes.
        format_: Its format, out of ``ALLOWED_FORMATS``.

    Raises:
        ImageError: With kind ``too_costly``; names what was found and expected.
    """
    try:
        _CHECKS[format_](content)
    except struct.error:
        # It ends early.
        return


def _check_jpeg(content: bytes) -> None:
    if content.count(b"\xff\xda") <= MAX_SCANS:
        return
    # More may be in metadata or behind the picture.
    num_scans, position = 0, 2
    while found := MARKER.search(content, position):
        marker, position = found.group(1)[0], found.end()
        if marker == EOI:
            return
        if marker in WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        position += length
        if marker == SOS:
            num_scans += 1
            _expect(num_scans, MAX_SCANS, "JPEG", "scans")
            end = _END_OF_SCAN.search(content, position)
            if end is None:
                return
            position = end.start()


def _check_png(content: bytes) -> None:
    num_notes = 0
    for num_chunks, kind in enumerate(_chunks(content, 8, ">I4s", name_first=False, padding=4), start=1):
        # A small first letter: a note.
        num_notes += kind[0] >> 5 & 1
        _expect(num_notes, _MAX_NOTES, "PNG", "notes")
        _expect(num_chunks - num_notes, _most_chunks(content), "PNG", "chunks")


def _check_webp(content: bytes) -> None:
    num_frames = 0
    for num_chunks, kind in enumerate(_chunks(content, 12, "<4sI", name_first=True, padding=0), start=1):
        num_frames += kind == b"ANMF"
        _expect(num_frames, _MAX_FRAMES, "WEBP", "frames")
        _expect(num_chunks, _most_chunks(content), "WEBP", "chunks")


def _chunks(content: bytes, position: int, form: str, *, name_first: bool, padding: int) -> Iterator[bytes]:
    """Names of the chunks of a PNG or RIFF file."""
    while position + 8 <= len(content):
        first, second = struct.unpack_from(form, content, position)
        name, length = (first, second) if name_first else (second, first)
        yield name
        # RIFF's chunks begin at even places.
        position += 8 + length + (padding or length % 2)


def _most_chunks(content: bytes) -> int:
    return _FREE_CHUNKS + len(content) // _MIN_CHUNK_BYTES


def _check_bmp(content: bytes) -> None:
    (header_bytes,) = struct.unpack_from("<I", content, 14)
    if header_bytes < 40:
        return
    width, height = struct.unpack_from("<ii", content, 18)
    (compression,) = struct.unpack_from("<I", content, 30)
    if compression in (1, 2):
        # A run takes two bytes, and so does the end of a row; beside them, header and palette.
        most = 2 * abs(width) * abs(height) + 2 * abs(height) + 4096
        _expect(len(content), most, "BMP", f"bytes of runs for {abs(width)} x {abs(height)} pixels")


def _check_tiff(content: bytes) -> None:
    order, tags = read_tags(content)
    segments, lengths = (
        [read_numbers(content, order, tags.get(tag), _MAX_SEGMENTS) for tag in pair]
        for pair in (_SEGMENT_OFFSETS, _SEGMENT_LENGTHS)
    )
    # Strips that share bytes are decoded once each. What lies beyond the end of the file is not.
    num_bytes = sum(
        min(length, max(0, len(content) - offset))
        for these, their_lengths in zip(segments, lengths, strict=True)
        for offset, length in zip(these, their_lengths, strict=False)
    )
    _expect(num_bytes, len(content), "TIFF", "bytes in its strips or tiles, which share none")
    width, height, tile_width, tile_height, compression = (
        _first(content, order, tags, tag) for tag in (WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT, COMPRESSION)
    )
    tile_pixels = len(segments[1]) * tile_width * tile_height
    _expect(tile_pixels, 4 * width * height + _FREE_TILE_PIXELS, "TIFF", "pixels in its tiles")
    if compression in _JPEG_IN_TIFF:
        # Compressed data has no such two bytes but at the start of a scan.
        most = MAX_SCANS + 4 * max(map(len, segments))
        _expect(content.count(b"\xff\xda"), most, "TIFF", "scans of JPEG")


def _first(content: bytes, order: str, tags: Mapping[int, Tag], tag: int) -> int:
    return next(iter(read_numbers(content, order, tags.get(tag), _MAX_SEGMENTS)), 0)


def _expect(found: int, most: int, format_: str, what: str) -> None:
    if found > most:
        raise ImageError(
            f"{format_} file: found {found} {what} or more, expected at most {most}; save the picture anew",
            "too_costly",
        )


_CHECKS = {
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "WEBP": _check_webp,
    "BMP": _check_bmp,
    "TIFF": _check_tiff,
}
