"""Bounds on the work that an image file can ask of a decoder, checked by its structure before it is decoded.

A file of kilobytes can repeat a scan thousands of times, or point thousands of strips at the same bytes, so
that pixels bound memory and not time. Each format's repetitions are counted here, in time that grows with the
file's length alone. A file that ends early, or is broken in another way, passes: its decoder says so.
"""

import re
import struct
from collections.abc import Iterator

from ship.errors import ImageError

__all__ = ["MAX_SCANS", "check_work"]

# Of a JPEG. libjpeg's progressive script has 10, an optimizer that tries scripts ends below 30; libtiff
# refuses more than 100 as well.
MAX_SCANS = 100
# Of a PNG or WebP. Encoders write blocks of 8 KiB and more; a camera's line-wise ones are still above this.
_MIN_CHUNK_BYTES, _FREE_CHUNKS = 256, 1000
# Of a PNG: texts and profiles, of which Pillow unpacks a megabyte each.
_MAX_PACKED_CHUNKS = 64
# Of an animated WebP, of which only the first is decoded.
_MAX_FRAMES = 1000
# Of a TIFF's page. Writers need about twenty tags, and a strip a row at most.
_MAX_TAGS = 1000
_MAX_SEGMENTS = 100_000
# A tile may be larger than the picture, but not by much.
_FREE_TILE_PIXELS = 1 << 22

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])
_EOI, _SOS = 0xD9, 0xDA
# Bytes of a value of each type of tag; 0 for an unknown one.
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 259, 322, 323
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
    # As libjpeg looks for markers: what is between two of them is skipped.
    while found := _MARKER.search(content, position):
        marker, position = found.group(1)[0], found.end()
        if marker == _EOI:
            return
        if marker in _WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        position += length
        if marker == _SOS:
            num_scans += 1
            _expect(num_scans, MAX_SCANS, "JPEG", "scans")
            end = _END_OF_SCAN.search(content, position)
            if end is None:
                return
            position = end.start()


def _check_png(content: bytes) -> None:
    num_packed = 0
    for num_chunks, kind in enumerate(_chunks(content, 8, ">I4s", name_first=False, padding=4), start=1):
        num_packed += kind in (b"zTXt", b"iTXt", b"iCCP")
        _expect(num_packed, _MAX_PACKED_CHUNKS, "PNG", "compressed texts and profiles")
        _expect(num_chunks, _most_chunks(content), "PNG", "chunks")


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
    order = "<" if content[:2] == b"II" else ">"
    is_big = struct.unpack_from(order + "H", content, 2)[0] == 43
    values = _read_tags(content, order, is_big=is_big)
    segments = [values.get(tag, ()) for tag in _SEGMENT_OFFSETS]
    num_segments = max(len(segments[0]), len(segments[1]))
    _expect(num_segments, _MAX_SEGMENTS, "TIFF", "strips or tiles")
    # Strips that share bytes are decoded once each. What lies beyond the end of the file is not.
    num_bytes = sum(
        min(length, max(0, len(content) - offset))
        for offsets, lengths in zip(_SEGMENT_OFFSETS, _SEGMENT_LENGTHS, strict=True)
        for offset, length in zip(values.get(offsets, ()), values.get(lengths, ()), strict=False)
    )
    _expect(num_bytes, len(content), "TIFF", "bytes in its strips or tiles, which share none")
    num_pixels = _first(values, _WIDTH) * _first(values, _HEIGHT)
    tile_pixels = len(segments[1]) * _first(values, _TILE_WIDTH) * _first(values, _TILE_HEIGHT)
    _expect(tile_pixels, 4 * num_pixels + _FREE_TILE_PIXELS, "TIFF", "pixels in its tiles")
    if _first(values, _COMPRESSION) in _JPEG_IN_TIFF:
        # Compressed data has no such two bytes but at the start of a scan.
        most = MAX_SCANS + 4 * num_segments
        _expect(content.count(b"\xff\xda"), most, "TIFF", "scans of JPEG")


def _read_tags(content: bytes, order: str, *, is_big: bool) -> dict[int, tuple[int, ...]]:
    """Whole numbers of the first page's tags that are needed here; counts all tags and their bytes."""
    pointer = order + ("Q" if is_big else "I")
    (at,) = struct.unpack_from(pointer, content, 8 if is_big else 4)
    (num_tags,) = struct.unpack_from(order + ("Q" if is_big else "H"), content, at)
    _expect(num_tags, _MAX_TAGS, "TIFF", "tags")
    entry = struct.Struct(order + ("HHQ" if is_big else "HHI"))
    inline = struct.calcsize(pointer)
    at += struct.calcsize(order + ("Q" if is_big else "H"))
    values: dict[int, tuple[int, ...]] = {}
    num_bytes = 0
    for _ in range(num_tags):
        tag, kind, count = entry.unpack_from(content, at)
        size = count * (_TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0)
        place = at + entry.size
        if size > inline:
            (place,) = struct.unpack_from(pointer, content, place)
            num_bytes += min(size, max(0, len(content) - place))
            _expect(num_bytes, len(content), "TIFF", "bytes in its tags, which share none")
        if tag in _NEEDED and kind in _NUMBERS:
            _expect(count, _MAX_SEGMENTS, "TIFF", "strips or tiles")
            values[tag] = struct.unpack_from(f"{order}{count}{_NUMBERS[kind]}", content, place)
        at += entry.size + inline
    return values


_NEEDED = frozenset(
    (_WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT, *_SEGMENT_OFFSETS, *_SEGMENT_LENGTHS)
)
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _first(values: dict[int, tuple[int, ...]], tag: int) -> int:
    return next(iter(values.get(tag, ())), 0)


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
