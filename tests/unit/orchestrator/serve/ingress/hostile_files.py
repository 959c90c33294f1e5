"""Hostile files and bodies, made here: nothing of them is stored."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache

from PIL import Image as PillowImage

__all__ = [
    "bombs",
    "encode",
    "jpeg_of_scans",
    "polyglots",
    "repeated_work",
    "truncations",
    "wrong_kinds",
]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def encode(format_: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """An image whose every part matters: noise does not compress."""
    file = io.BytesIO()
    PillowImage.effect_noise(size, 90).convert("RGB").save(file, format_)
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", kind: int = 0, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def bombs() -> Iterator[tuple[str, bytes]]:
    """Few bytes that claim, or hold, a great many pixels."""
    yield "png of 81 megapixels that holds them", _png_of_zeros(9000)
    yield "png that claims 2^31 by 2^31", png(2**31 - 1, 2**31 - 1)
    yield "png of one bit a pixel", png(2**16, 2**16, depth=1)
    small = encode("BMP")
    for width, height in ((30_000, 30_000), (2**31 - 1, 1), (1, -(2**31)), (60_000, -60_000)):
        yield (
            f"bmp that claims {width} by {height}",
            small[:18] + struct.pack("<ii", width, height) + small[26:],
        )
    for size in (20_000, 60_000):
        yield f"jpeg that claims {size} squared", _claim_jpeg(encode("JPEG"), size)
    yield "webp that claims 16383 squared", _webp(16383)
    yield "webp, extended, that claims 2^24 squared", _webp_extended(1 << 24)
    for order in "<>":
        for size in (9000, 100_000, 2**31 - 1):
            yield f"tiff ({order}) that claims {size} squared", _tiff(order, size)


def jpeg_of_scans(num_scans: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """A progressive JPEG whose last scan stands many times."""
    file = io.BytesIO()
    PillowImage.new("L", size).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    start = content.rindex(b"\xff\xda")
    num_more = num_scans - content.count(b"\xff\xda")
    return content[:-2] + content[start:-2] * num_more + content[-2:]


def tiff_of_strips(num_strips: int, num_bytes: int) -> bytes:
    """A TIFF whose strips, a row each, are all the same bytes."""
    return _tiff_of(
        [(256, 4, 64), (257, 4, num_strips), (258, 3, 8), (259, 3, 8), (262, 3, 1), (278, 4, 1)],
        {273: [8] * num_strips, 279: [num_bytes] * num_strips},
        bytes(num_bytes),
    )


def tiff_of_one_tile(side: int) -> bytes:
    """A TIFF of a few pixels in a tile of many."""
    packed = zlib.compress(bytes(side * side // 64), 9)
    tags = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 8), (262, 3, 1), (322, 4, side), (323, 4, side)]
    return _tiff_of([*tags, (324, 4, 8), (325, 4, len(packed))], {}, packed)


def _tiff_of(tags: list[tuple[int, int, int]], arrays: dict[int, list[int]], data: bytes) -> bytes:
    """A TIFF with its data first, then its directory, then the values of the arrays."""
    at = 8 + len(data)
    behind = at + 2 + 12 * (len(tags) + len(arrays)) + 4
    rows, rest = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags], b""
    for tag, values in arrays.items():
        rows.append(struct.pack("<HHII", tag, 4, len(values), behind + len(rest)))
        rest += struct.pack(f"<{len(values)}I", *values)
    rows.sort(key=lambda row: struct.unpack("<H", row[:2]))
    directory = struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)
    return b"II" + struct.pack("<HI", 42, at) + data + directory + rest


def bmp_of_runs(num_bytes: int) -> bytes:
    """A BMP of a few pixels with a great many runs of none."""
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 0, 0, 0, 256, 0)
    palette = bytes(range(256)) * 4
    offset = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + num_bytes, 0, 0, offset) + head + palette + bytes(num_bytes)


def webp_of_frames(num_frames: int) -> bytes:
    """An animated WebP of a great many frames."""
    file = io.BytesIO()
    first, second = PillowImage.new("RGB", (8, 8)), PillowImage.new("RGB", (8, 8), "red")
    first.save(file, "WEBP", save_all=True, append_images=[second])
    content = file.getvalue()
    start = content.rindex(b"ANMF")
    whole = content + content[start:] * (num_frames - 2)
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def repeated_work() -> Iterator[tuple[str, bytes]]:
    """Files of few pixels that ask a decoder to do something again and again, of each format."""
    yield "jpeg of 1000 scans", jpeg_of_scans(1000)
    yield "jpeg of 1000 scans behind garbage", jpeg_of_scans(1000).replace(b"\xff\xda", b"xx\xff\xff\xda")
    yield "png of 20001 notes", png(8, 8)[:33] + _chunk(b"prVt", b"") * 20_001 + png(8, 8)[33:]
    empty = _chunk(b"IDAT", b"")
    yield "png of 2000 empty chunks", png(8, 8)[:33] + empty * 2000 + png(8, 8)[33:]
    yield "webp of 1001 frames", webp_of_frames(1001)
    yield "bmp of 20000 runs", bmp_of_runs(40_000)
    yield "tiff of 500 strips that share bytes", tiff_of_strips(500, 10_000)
    yield "tiff of a tile of 4000 squared", tiff_of_one_tile(4000)


@cache
def _png_of_zeros(size: int) -> bytes:
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(3 * size + 1)) for _ in range(size)) + rows.flush()
    return png(size, size, packed, kind=2)


def _claim_jpeg(content: bytes, size: int) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", size, size) + content[at + 4 :]


def _riff(chunk: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def _webp(size: int) -> bytes:
    frame = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", size, size) + bytes(64)
    return _riff(b"VP8 " + struct.pack("<I", len(frame)) + frame)


def _webp_extended(size: int) -> bytes:
    edge = struct.pack("<I", size - 1)[:3]
    return _riff(b"VP8X" + struct.pack("<I", 10) + bytes(4) + edge + edge)


def _tiff(order: str, size: int) -> bytes:
    tags = [(256, 4, size), (257, 4, size), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 9)]
    mark = b"II" if order == "<" else b"MM"
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + (struct.pack(order + "I", value) if kind == 4 else struct.pack(order + "HH", value, 0))
        for tag, kind, value in tags
    )
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return mark + struct.pack(order + "HI", 42, 8) + directory


def truncations() -> Iterator[tuple[str, bytes]]:
    """Each format, cut at several places."""
    for format_ in FORMATS:
        content = encode(format_)
        for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
            yield f"{format_} cut at {share:.0%}", content[: int(len(content) * share)]
        yield f"{format_} of a first few bytes", content[:12]


class _Opens:
    """An object whose unpickling opens a file."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("/tmp/hostile-pickle", "w")


def wrong_kinds() -> Iterator[tuple[str, bytes]]:
    """Files that are no image of a format that is taken."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../../evil.png", encode("PNG"))
    gif = io.BytesIO()
    PillowImage.new("L", (8, 8)).save(gif, "GIF")
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield (
        "svg with entities",
        b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    )
    yield "pdf", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj"
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run"
    yield "zip", archive.getvalue()
    yield "gif", gif.getvalue()
    yield "pickle", pickle.dumps(_Opens())
    yield "pickle, protocol 0", pickle.dumps(_Opens(), protocol=0)
    yield "numpy", b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    yield "html", b"<html><script>alert(1)</script></html>"
    yield "elf", b"\x7fELF\x02\x01\x01" + bytes(64)
    yield "gzip", zlib.compress(bytes(1000), wbits=31)
    yield "mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(32)
    yield "heic", b"\x00\x00\x00\x18ftypheic" + bytes(32)
    yield "psd", b"8BPS\x00\x01" + bytes(32)
    yield "icns", b"icns\x00\x00\x00\x10" + bytes(32)
    yield "jpeg 2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(32)
    yield "ppm", b"P6\n# /etc/passwd\n99999 99999\n255\n"
    yield "zeros", bytes(1000)
    yield "text", b"hello"
    yield "riff that is a sound", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(32)


def polyglots() -> Iterator[tuple[str, bytes]]:
    """Files that begin as one kind and are another."""
    html = b"<script>alert(1)</script>"
    for format_ in FORMATS:
        yield f"{format_} in name, html in truth", encode(format_)[:16] + html * 20
    yield "png, then a zip in its first chunk", b"\x89PNG\r\n\x1a\n" + dict(wrong_kinds())["zip"]
    yield "jpeg mark, then a png", b"\xff\xd8\xff" + encode("PNG")
    yield "bmp mark, then a jpeg", b"BM" + encode("JPEG")
    yield "tiff mark, then nothing but one byte over and over", b"II*\0" + b"A" * 5000
    yield "gif, then a png", b"GIF89a" + encode("PNG")
    yield "pdf, then a jpeg", b"%PDF-1.7\n" + encode("JPEG")
    yield "tiff whose directory is itself", b"II*\0\x04\x00\x00\x00" + bytes(8)
    yield "tiff whose directory is far away", b"II*\0\xff\xff\xff\xff" + bytes(8)
    yield "big tiff of a directory with 2^63 entries", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63)
    yield "png with two headers", png(8, 8) + png(9000, 9000)[8:]
    yield "png whose text unpacks to 100 MB", _text_bomb()
    yield "png with a chunk of length 2^31", b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffIHDR" + bytes(30)


def _text_bomb() -> bytes:
    packed = zlib.compress(bytes(100_000_000), 9)
    whole = png(8, 8)
    return whole[:33] + _chunk(b"zTXt", b"a\0\0" + packed[:80_000]) + whole[33:]
