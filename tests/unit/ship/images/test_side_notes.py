"""Side notes of image files spoil no pixels: neither refused nor changed, if large, damaged or unknown."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ship.errors import ImageError
from ship.images.decoding import read_size
from ship.images.side_notes import part
from tests.unit.ship.images.factory import Array, chunk, shown, smooth, tiff

PIXELS = smooth(24, 40, 3, 255).astype(np.uint8)
# A TIFF's header and one tag: the orientation.
EXIF = {
    turn: b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, turn, 0) + b"\0" * 4 for turn in (1, 6)
}
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
# As EXIF: a tag whose bytes are elsewhere, a directory that goes round, more tags than bytes, another format.
BROKEN_EXIF = [
    b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 3, 99, 1 << 30),
    b"II*\0\x08\0\0\0\xff\xff\xff\xff",
    b"MM\0*\xff\xff\xff\xff",
    b"garbage",
    b"",
]


def save(format_: str, **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format_, **how)
    return file.getvalue()


def with_chunks(*chunks: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with further chunks."""
    content = save("PNG")
    place = content.index(before) - 4
    return content[:place] + b"".join(chunks) + content[place:]


def damaged(content: bytes, text: bytes) -> bytes:
    """A file with a byte after a text changed."""
    place = content.index(text) + len(text)
    return content[:place] + bytes((content[place] ^ 0xFF,)) + content[place + 1 :]


PNG_NOTES = {
    "a large profile": save("PNG", icc_profile=bytes(2_000_000)),
    "a profile that is none": with_chunks(chunk(b"iCCP", b"name\0\0nothing packed")),
    "a wrong CRC of a profile": damaged(with_chunks(chunk(b"iCCP", b"name\0\0nothing")), b"iCCPname"),
    "a wrong CRC of a comment": damaged(with_chunks(chunk(b"tEXt", b"Comment\0hello")), b"hello"),
    "a wrong CRC of a private chunk": damaged(with_chunks(chunk(b"prVt", b"hello")), b"hello"),
    "a wrong CRC of a time": damaged(with_chunks(chunk(b"tIME", bytes(7)), before=b"IEND"), b"tIME"),
    "a wrong CRC of EXIF": damaged(with_chunks(chunk(b"eXIf", EXIF[1])), b"II*\0"),
    "empty notes": with_chunks(
        *(chunk(kind, b"") for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"zTXt", b"iTXt"))
    ),
    "a broken packed text": with_chunks(chunk(b"zTXt", b"Comment\0\0" + b"\xff" * 50)),
    "many packed texts": with_chunks(*[chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"hello"))] * 300),
    "many small notes": with_chunks(*[chunk(b"prVt", b"")] * 5000),
    "a bomb in a text": with_chunks(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))),
    "a bomb in XMP": with_chunks(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(50_000_000)))
    ),
    "notes behind the pixels": with_chunks(
        chunk(b"zTXt", b"Comment\0\0x"), chunk(b"zzZz", b"x"), before=b"IEND"
    ),
    "bytes behind the end": save("PNG") + b"garbage" * 1000,
    "an animation that is broken": with_chunks(chunk(b"acTL", b"\xff" * 3), chunk(b"fcTL", b"\0")),
    "depths of samples": with_chunks(chunk(b"sBIT", bytes((5, 6, 5)))),
}


@pytest.mark.parametrize("note", PNG_NOTES)
def test_notes_of_a_png(note: str) -> None:
    assert np.array_equal(shown(PNG_NOTES[note]), PIXELS)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_file_without_notes_is_not_copied(format_: str) -> None:
    content = save(format_)
    assert part(content, format_).content is content


def test_a_decoder_gets_a_png_without_its_notes() -> None:
    for noted in (
        with_chunks(chunk(b"tEXt", b"Comment\0hello"), chunk(b"pHYs", bytes(9))),
        with_chunks(chunk(b"eXIf", EXIF[6]), before=b"IEND"),
        save("PNG") + b"garbage",
    ):
        assert part(noted, "PNG").content == save("PNG")


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


JPEG_NOTES = {
    "a profile without its parts": segment(0xE2, b"ICC_PROFILE\0"),
    "a profile in the wrong number": segment(0xE2, b"ICC_PROFILE\0\x01\x09abc") * 3,
    "many pictures that are not there": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0"),
    "Photoshop's resources": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\xff\xff"),
    "JFIF that ends early": segment(0xE0, b"JFIF\0\x01"),
    "JFIF twice": segment(0xE0, b"JFIF\0" + b"\xff" * 9),
    "Adobe's marker that ends early": segment(0xEE, b"Adobe\0"),
    "scans in a comment": segment(0xFE, b"\xff\xda" * 500),
    "a private segment": segment(0xEB, bytes(60_000)) * 40,
    **{f"broken EXIF {number}": segment(0xE1, b"Exif\0\0" + exif) for number, exif in enumerate(BROKEN_EXIF)},
}


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("note", JPEG_NOTES)
def test_notes_of_a_jpeg(note: str, where: str) -> None:
    content = save("JPEG")
    place = 2 if where == "first" else content.index(b"\xff\xda")
    noted = content[:place] + JPEG_NOTES[note] + content[place:]
    assert np.array_equal(shown(noted), shown(content))


def test_adobes_marker_that_colours_need_is_kept() -> None:
    """CMYK is stored inverted, RGB without a transform."""
    for mode, how in (("CMYK", {}), ("RGB", {"keep_rgb": True})):
        file = io.BytesIO()
        Image.fromarray(PIXELS).convert(mode).save(file, "JPEG", quality=95, subsampling=0, **how)
        assert b"Adobe" in file.getvalue()
        assert np.abs(shown(file.getvalue()).astype(int) - PIXELS).mean() < 4


def test_the_first_picture_of_several_in_one_jpeg() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.array_equal(shown(file.getvalue()), shown(save("JPEG")))


def test_the_first_frame_of_an_animated_png() -> None:
    for is_apart in (False, True):
        file = io.BytesIO()
        frames = [Image.new("RGB", (40, 24), "red")] * 2
        Image.fromarray(PIXELS).save(file, "PNG", save_all=True, append_images=frames, default_image=is_apart)
        assert np.array_equal(shown(file.getvalue()), PIXELS)


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP", b"prVt"])
def test_notes_of_a_webp(kind: bytes) -> None:
    content = save("WEBP", lossless=True, exif=b"Exif\0\0" + EXIF[1], icc_profile=b"nothing", xmp=b"<x/>")
    for body in (b"", b"\xff" * 11, bytes(100_000)):
        noted = content + kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        noted = noted[:4] + struct.pack("<I", len(noted) - 8) + noted[8:]
        assert np.array_equal(shown(noted), PIXELS)


# Number, type, number of values and the values of a tag.
TIFF_NOTES: list[tuple[int, int, int, Any]] = [
    (270, 2, 12, "description"),
    (282, 5, 1, (0, 0)),
    (296, 3, 1, 77),
    (306, 2, 5, "when"),
    (34675, 7, 500_000, bytes(500_000)),
    (700, 1, 40, b"\xff" * 40),
    (33723, 4, 2, (1, 2)),
    (37500, 7, 4, b"\xff" * 4),
    (37724, 4, 1, 4_000_000_000),
    (50341, 7, 8, b"PrintIM\0"),
    (0xBC01, 3, 1, 1),
]


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("note", TIFF_NOTES, ids=lambda note: str(note[0]))
def test_notes_of_a_tiff(note: tuple[int, int, int, Any], compression: str | None) -> None:
    content = tiff(PIXELS, photometric="rgb", compression=compression, extratags=[(*note, True)])
    assert np.array_equal(shown(content), PIXELS)
    # As what it is not: floats, and text that is somewhere else.
    number = struct.pack("<H", note[0])
    place = next(at for at in range(10, len(content), 12) if content[at : at + 2] == number)
    for kind, count in ((11, note[2]), (2, 0xFFFF), (99, 1)):
        broken = bytearray(content)
        broken[place + 2 : place + 8] = struct.pack("<HI", kind, count)
        assert np.array_equal(shown(bytes(broken)), PIXELS), kind


def with_orientation(format_: str, how: str) -> bytes:
    exif, text = b"Exif\0\0" + EXIF[6], PngImagePlugin.PngInfo()
    if how == "exif":
        return save(format_, exif=exif, **({"lossless": True} if format_ == "WEBP" else {}))
    if how == "xmp" and format_ != "PNG":
        return save(format_, xmp=XMP, **({"lossless": True} if format_ == "WEBP" else {}))
    if how == "raw profile":
        hexed = "\nexif\n      " + str(len(exif)) + "\n" + exif.hex() + "\n"
        text.add_text("Raw profile type exif", hexed, zip=True)
    else:
        text.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=how == "packed xmp")
    return save(format_, pnginfo=text)


@pytest.mark.parametrize(
    ("format_", "how"),
    [
        *((format_, how) for format_ in ("JPEG", "PNG", "WEBP") for how in ("exif", "xmp")),
        ("PNG", "raw profile"),
        ("PNG", "packed xmp"),
    ],
)
def test_orientation_is_the_one_note_that_is_heeded(format_: str, how: str) -> None:
    content = with_orientation(format_, how)
    upright: Array = shown(save("JPEG")) if format_ == "JPEG" else PIXELS
    assert read_size(content) == (24, 40)
    assert np.array_equal(shown(content), np.rot90(upright, -1))


@pytest.mark.parametrize("exif", BROKEN_EXIF)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_turns_nothing(format_: str, exif: bytes) -> None:
    how = {"lossless": True} if format_ == "WEBP" else {}
    content = save(format_, exif=b"Exif\0\0" + exif, **how)
    assert np.array_equal(shown(content), shown(save(format_, **how)))


def test_critical_chunks_that_are_unknown_are_refused_by_name() -> None:
    """As telephones write them: the pixels are not what a PNG's are."""
    with pytest.raises(ImageError, match="unknown critical chunk b'CgBI'") as caught:
        shown(with_chunks(chunk(b"CgBI", bytes(4)), before=b"IHDR"))
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
def test_damage_to_what_pixels_need_is_refused(kind: bytes) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).quantize(16).save(file, "PNG", transparency=bytes(range(16)))
    content = file.getvalue()
    with pytest.raises(ImageError, match="broken PNG file") as caught:
        shown(damaged(content, kind))
    assert caught.value.kind == "corrupt"
