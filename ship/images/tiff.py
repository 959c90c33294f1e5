"""The first page of a TIFF as its decoder may see it: what the pixels need, and nothing else.

Tags are read here and written anew into a small directory at the file's end, in the classic form; notes
(texts, profiles, other pages, private tags) stay out, so that no damage to them reaches a decoder. Forms that
Pillow misreads are mended or refused by name.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

from ship.errors import ImageError

__all__ = [
    "COMPRESSION",
    "HEIGHT",
    "ORIENTATION",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "WIDTH",
    "XMP",
    "Page",
    "Tag",
    "read_numbers",
    "read_tags",
    "rewrite",
]

# Of a page. Writers need about twenty.
_MAX_TAGS = 1000
WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANES = 256, 257, 259, 262, 277, 284
ORIENTATION, TILE_WIDTH, TILE_HEIGHT, XMP = 274, 322, 323, 700
_BITS, _MAX_VALUE, _EXTRA, _FORMAT, _SAMPLE_MAX, _SUBSAMPLING = 258, 281, 338, 339, 341, 530
# What pixels need: sizes and places, colours, codecs, tables of JPEG and of YCbCr.
_KEPT = frozenset(
    (
        *(WIDTH, HEIGHT, _BITS, COMPRESSION, PHOTOMETRIC, 266, 273, ORIENTATION, SAMPLES, 278, 279, PLANES),
        *(292, 293, 317, 320, TILE_WIDTH, TILE_HEIGHT, 324, 325, 332, _EXTRA, _FORMAT, 347),
        *(*range(512, 522), 529, _SUBSAMPLING, 531, 532),
    )
)
# Bytes of a value of each type of tag; 0 for an unknown one.
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_REAL_NUMBERS = {**_NUMBERS, 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}
_SIGNED, _FLOAT = 2, 3
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _YCBCR = 0, 1, 6
_COLOURS = {
    0: "white is zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
}


class Tag(NamedTuple):
    """Where a tag's values are: type, number of values, first byte in the file."""

    kind: int
    number: int
    place: int


class Page(NamedTuple):
    """A TIFF of one page.

    Attributes:
        content: The file for the decoder.
        is_inverted: Whether deep grey samples are to be inverted: 0 is white.
        container: Bits of a sample.
        tagged: Bits that a tag names as filled; None if none does.
        is_signed: Whether whole numbers have a sign.
        form: The form in words, for a refusal.
    """

    content: bytes
    is_inverted: bool
    container: int
    tagged: int | None
    is_signed: bool
    form: str


def read_tags(content: bytes) -> tuple[str, dict[int, Tag]]:
    """Byte order and tags of the first page.

    Raises:
        ImageError: Tags are too many, or share their bytes, as in a bomb.
        struct.error: The file ends early.
    """
    order = "<" if content[:2] == b"II" else ">"
    is_big = struct.unpack_from(order + "H", content, 2)[0] == 43
    pointer, number = (order + "Q", order + "Q") if is_big else (order + "I", order + "H")
    (at,) = struct.unpack_from(pointer, content, 8 if is_big else 4)
    (num_tags,) = struct.unpack_from(number, content, at)
    _expect(num_tags, _MAX_TAGS, "tags")
    entry, inline = struct.Struct(order + ("HHQ" if is_big else "HHI")), struct.calcsize(pointer)
    at += struct.calcsize(number)
    tags: dict[int, Tag] = {}
    num_bytes = 0
    for _ in range(num_tags):
        tag, kind, count = entry.unpack_from(content, at)
        size, place = count * _size(kind), at + entry.size
        if size > inline:
            (place,) = struct.unpack_from(pointer, content, place)
            num_bytes += min(size, max(0, len(content) - place)) if tag in _KEPT else 0
            _expect(num_bytes, len(content), "bytes in its tags, which share none")
        tags[tag] = Tag(kind, count, place)
        at += entry.size + inline
    return order, tags


def read_numbers(content: bytes, order: str, tag: Tag | None, most: int = 100_000) -> tuple[int, ...]:
    """Whole numbers of a tag; none if it is missing or of another type.

    Raises:
        ImageError: They are more than ``most``.
        struct.error: The file ends early.
    """
    if tag is None or tag.kind not in _NUMBERS:
        return ()
    _expect(tag.number, most, "strips or tiles")
    return struct.unpack_from(f"{order}{tag.number}{_NUMBERS[tag.kind]}", content, tag.place)


def rewrite(content: bytes) -> Page:
    """The first page alone, with the tags that its pixels need.

    Raises:
        ImageError: Its form would be misread (``unsupported``); or as ``read_tags``.
        struct.error: The file ends early.
    """
    order, tags = read_tags(content)
    form = _Form(content, order, tags)
    form.refuse_misread()
    kept = {tag: _value(content, order, found) for tag, found in sorted(tags.items()) if tag in _KEPT}
    one = struct.pack(order + "H", 1)
    if form.is_inverted:
        kept[PHOTOMETRIC] = (3, 1, one)
    if form.samples == 1 and PLANES in kept:
        kept[PLANES] = (3, 1, one)
    return Page(
        _write(content, order, kept), form.is_inverted, form.bits, form.tagged, form.is_signed, str(form)
    )


class _Form:
    """What kind of samples a page has."""

    def __init__(self, content: bytes, order: str, tags: Mapping[int, Tag]) -> None:
        def first(tag: int, default: int) -> int:
            return next(iter(read_numbers(content, order, tags.get(tag))), default)

        self.bits, self.format = first(_BITS, 1), first(_FORMAT, 1)
        self.samples, self.planes = first(SAMPLES, 1), first(PLANES, 1)
        self.compression, self.photometric = first(COMPRESSION, 1), first(PHOTOMETRIC, 0)
        self.subsampling = read_numbers(content, order, tags.get(_SUBSAMPLING)) or (2, 2)
        # 258: samples of different depths or formats.
        self.is_mixed = any(
            len(set(read_numbers(content, order, tags.get(tag)))) > 1 for tag in (_BITS, _FORMAT)
        )
        self.is_inverted = self.photometric == _WHITE_IS_ZERO and self.bits > 8
        # Of planes apart that are not compressed: Pillow takes 8 bits a sample, and no premultiplied alpha.
        self.is_odd = self.bits > 8 or first(_EXTRA, 0) == 1
        self.is_signed = self.format == _SIGNED
        largest = [
            value for tag in (_MAX_VALUE, _SAMPLE_MAX) for value in _read_reals(content, order, tags.get(tag))
        ]
        depths = {bits for bits in range(8, 17) if 2**bits - 1 in largest} | {self.bits} & {12}
        # A largest sample of another value is a statistic. Two depths are none.
        self.tagged = next(iter(depths)) if len(depths) == 1 and self.format != _FLOAT else None

    def refuse_misread(self) -> None:
        is_grey = self.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
        if (
            (self.is_signed and self.bits <= 8)
            or self.is_mixed
            or (is_grey and self.samples > 1 and (self.planes == 2 or self.photometric == _WHITE_IS_ZERO))
            or (self.planes == 2 and self.samples > 1 and self.compression == 1 and self.is_odd)
            or (self.photometric == _YCBCR and self.compression == 1 and set(self.subsampling) != {1})
        ):
            raise ImageError(
                f"a TIFF of {self} is not read; save it with 8 or 16 bits, RGB or grey, unsigned",
                "unsupported",
            )

    def __str__(self) -> str:
        kind = {_SIGNED: "signed integers", _FLOAT: "floats"}.get(self.format, "unsigned integers")
        colour = _COLOURS.get(self.photometric, f"photometric interpretation {self.photometric}")
        planes = ", planes apart" if self.planes == 2 else ""
        mixed = " of mixed depth" if self.is_mixed else ""
        return (
            f"{self.bits}-bit {kind}{mixed}, {colour}, {self.samples} samples a pixel{planes}, "
            f"compression {self.compression}"
        )


def _read_reals(content: bytes, order: str, tag: Tag | None) -> tuple[float, ...]:
    if tag is None or tag.kind not in _REAL_NUMBERS or tag.number > 16:
        return ()
    try:
        return struct.unpack_from(f"{order}{tag.number}{_REAL_NUMBERS[tag.kind]}", content, tag.place)
    except struct.error:
        return ()


def _value(content: bytes, order: str, tag: Tag) -> tuple[int, int, bytes]:
    """Type, count and bytes of a tag's values in a classic TIFF."""
    if tag.kind == 16:
        numbers = read_numbers(content, order, tag)
        return 4, tag.number, struct.pack(f"{order}{tag.number}I", *numbers)
    return tag.kind, tag.number, content[tag.place : tag.place + tag.number * _size(tag.kind)]


def _write(content: bytes, order: str, kept: Mapping[int, tuple[int, int, bytes]]) -> bytes:
    """The file with a directory of these tags at its end."""
    start = len(content) + len(content) % 2
    values_at = start + 2 + 12 * len(kept) + 4
    directory, values = [struct.pack(order + "H", len(kept))], b""
    for tag, (kind, count, value) in kept.items():
        held = value.ljust(4, b"\0")
        if len(value) > 4:
            held = struct.pack(order + "I", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)
        directory.append(struct.pack(order + "HHI", tag, kind, count) + held)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    padding = b"\0" * (start - len(content))
    return b"".join((head, memoryview(content)[8:], padding, *directory, b"\0" * 4, values))


def _size(kind: int) -> int:
    return _TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0


def _expect(found: int, most: int, what: str) -> None:
    if found > most:
        raise ImageError(
            f"TIFF file: found {found} {what} or more, expected at most {most}; save the picture anew",
            "too_costly",
        )
