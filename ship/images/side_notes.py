"""Side notes of image files (profiles, texts, previews, thumbnails), kept away from decoders.

A decoder gets a file with nothing but its pixels and what they need: no note, however large, damaged or
unknown, can spoil them. Of the notes only the orientation and the depth of samples are read, within bounds.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ship.errors import ImageError
from ship.images.bmp import with_whole_palette
from ship.images.jpeg import EOI, MARKER, SOS, WITHOUT_LENGTH
from ship.images.tiff import ORIENTATION, XMP, Page, Tag, read_numbers, read_tags, rewrite

__all__ = ["Pixels", "as_bytes_of_grey_alpha", "part"]

_PNG_HEAD_BYTES = 8
# What pixels need; the rest of a PNG's chunks with a small first letter are notes.
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")
_XMP_OF_JPEG, _EXIF = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_COMMENT = 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# The most that a packed note is unpacked to: old PNGs have their EXIF in a text.
_MAX_UNPACKED_BYTES = 1 << 20


class Pixels(NamedTuple):
    """An image file without its notes, and what these say about the pixels.

    Attributes:
        content: The file for the decoder.
        orientation: Of EXIF or XMP, 1 to 8; a TIFF's own tag is left to its decoder.
        significant_bits: Depth that a PNG's sBIT names; None if there is none.
        page: A TIFF's form.
    """

    content: bytes
    orientation: int = 1
    significant_bits: int | None = None
    page: Page | None = None


class _Notes:
    """Notes that say how a picture is to be turned."""

    def __init__(self) -> None:
        self.exif, self.raw_exif, self.xmp = b"", b"", b""

    @property
    def orientation(self) -> int:
        found = _read_exif(self.exif or self.raw_exif)
        if found is None:
            match = _XMP_ORIENTATION.search(self.xmp)
            found = int(match[1]) if match else 1
        return found


def part(content: bytes, format_: str) -> Pixels:
    """Part the pixels of an image file from its notes.

    Args:
        content: The file's bytes.
        format_: Its format, out of ``ALLOWED_FORMATS``.

    Raises:
        ImageError: The file's form is refused by name.
        struct.error: The file ends early.
    """
    if format_ == "TIFF":
        return _part_tiff(content)
    if format_ == "BMP":
        return Pixels(with_whole_palette(content))
    return {"PNG": _part_png, "JPEG": _part_jpeg, "WEBP": _part_webp}[format_](content)


def _part_png(content: bytes) -> Pixels:
    notes, significant_bits = _Notes(), None
    kept: list[bytes] = []
    kept_to, end = 0, _PNG_HEAD_BYTES
    for kind, start, end in _png_chunks(content):
        if kind in _PNG_CHUNKS or len(kind) < 4:
            if kind == b"tRNS":
                kept += content[kept_to:start], _scaled_key(content, start, end)
                kept_to = end
            continue
        if kind[0] & 0x20 == 0:
            raise ImageError(
                f"PNG file: unknown critical chunk {kind!r}; save the picture as a standard PNG",
                "unsupported",
            )
        kept.append(content[kept_to:start])
        kept_to = end
        if kind not in (b"eXIf", b"sBIT", b"iTXt", b"zTXt", b"tEXt"):
            continue
        body = content[start + 8 : end - 4]
        if end > len(content) or struct.pack(">I", zlib.crc32(kind + body)) != content[end - 4 : end]:
            continue
        if kind == b"sBIT":
            significant_bits = max(body, default=None)
        else:
            _note_text(notes, kind, body)
    # Without a note it is the content itself, not a copy.
    return Pixels(b"".join((*kept, content[kept_to:end])), notes.orientation, significant_bits)


def as_bytes_of_grey_alpha(content: bytes) -> bytes:
    """A PNG of 16-bit grey and alpha as one of four 8-bit channels: the upper and the lower byte of each.

    Rows and filters are the same in both, as a pixel is four bytes.
    """
    header = bytearray(content[12:29])
    header[12:14] = bytes((8, 6))
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def _scaled_key(content: bytes, start: int, end: int) -> bytes:
    """The transparent colour of grey of 2 or 4 bits as Pillow compares it: in 8 bits."""
    depth, colour = content[24], content[25]
    key, crc = content[start + 8 : end - 4], content[end - 4 : end]
    is_sound = len(key) == 2 and struct.pack(">I", zlib.crc32(b"tRNS" + key)) == crc
    if colour != 0 or depth not in (2, 4) or not is_sound:
        return content[start:end]
    scaled = b"tRNS" + bytes((0, (key[1] & (1 << depth) - 1) * (255 // ((1 << depth) - 1))))
    return content[start : start + 4] + scaled + struct.pack(">I", zlib.crc32(scaled))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk; what ends early is the last one."""
    start = _PNG_HEAD_BYTES
    while start < len(content):
        kind = content[start + 4 : start + 8]
        end = len(content) + 1
        if len(kind) == 4:
            end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end


def _note_text(notes: _Notes, kind: bytes, body: bytes) -> None:
    """EXIF and XMP, also in the texts in which ImageMagick and Adobe write them."""
    if kind == b"eXIf":
        notes.exif = body
        return
    name, _, text = body.partition(b"\0")
    if name == b"XML:com.adobe.xmp" and kind == b"iTXt":
        is_packed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        notes.xmp = _unpack(text) if is_packed else text
    elif name == b"Raw profile type exif" and kind in (b"zTXt", b"tEXt"):
        lines = (_unpack(text[1:]) if kind == b"zTXt" else text).split(b"\n")
        try:
            notes.raw_exif = bytes.fromhex(b"".join(lines[3:]).decode("ascii"))
        except ValueError:
            return


def _unpack(text: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(text, _MAX_UNPACKED_BYTES)
    except zlib.error:
        return b""


def _part_jpeg(content: bytes) -> Pixels:
    """Without the segments of applications and comments, of which pixels need JFIF's and Adobe's."""
    notes, kept, kept_to, position = _Notes(), [], 0, 2
    while found := MARKER.search(content, position):
        marker, position = found.group(1)[0], found.end()
        if marker in (EOI, SOS):
            break
        if marker in WITHOUT_LENGTH:
            continue
        if position + 2 > len(content):
            break
        start, position = position, position + int.from_bytes(content[position : position + 2], "big")
        if marker in _FRAMES:
            _check_frame(content[start + 2 : position])
        if not (0xE0 <= marker <= 0xEF or marker == _COMMENT) or position > len(content):
            continue
        body = content[start + 2 : position]
        if (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14) or (
            marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
        ):
            continue
        kept.append(content[kept_to : found.start()])
        kept_to = position
        if marker == 0xE1 and body.startswith(_EXIF):
            notes.exif += body[len(_EXIF) :]
        elif marker == 0xE1 and body.startswith(_XMP_OF_JPEG):
            notes.xmp = body[len(_XMP_OF_JPEG) :]
    return Pixels(b"".join((*kept, content[kept_to:])), notes.orientation)


def _check_frame(frame: bytes) -> None:
    """Refuse a JPEG by the depth and the number of its components."""
    if len(frame) >= 6 and (frame[0] != 8 or frame[5] not in (1, 3, 4)):
        raise ImageError(
            f"a JPEG of {frame[0]} bits and {frame[5]} components is not read; save it with 8 bits, grey, "
            "RGB or CMYK",
            "unsupported",
        )


def _part_webp(content: bytes) -> Pixels:
    """As it is: libwebp reads no notes."""
    notes, start = _Notes(), 12
    while start + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, start)
        if kind == b"EXIF" and not notes.exif:
            notes.exif = content[start + 8 : start + 8 + length]
        elif kind == b"XMP " and not notes.xmp:
            notes.xmp = content[start + 8 : start + 8 + length]
        start += 8 + length + length % 2
    return Pixels(content, notes.orientation)


def _part_tiff(content: bytes) -> Pixels:
    page = rewrite(content)
    _, tags = read_tags(content)
    notes = _Notes()
    if ORIENTATION not in tags and (xmp := tags.get(XMP)) is not None:
        notes.xmp = content[xmp.place : xmp.place + xmp.number]
    return Pixels(page.content, notes.orientation, page=page)


def _read_exif(exif: bytes) -> int | None:
    """Orientation of an EXIF block; None if it has none or cannot be read."""
    exif = exif.removeprefix(_EXIF)
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        order, tags = read_tags(exif)
        return next(iter(read_numbers(exif, order, tags.get(ORIENTATION, Tag(0, 0, 0)))), None)
    # An unreadable note does not spoil readable pixels.
    except (ImageError, struct.error):
        return None
