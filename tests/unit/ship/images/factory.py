"""Writers of image files in every form, and what a second decoder makes of them."""

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ship.images.decoding import decode_pixels, read_size
from ship.settings.view import DEFAULT_VIEW, View

Array = NDArray[Any]
# Of Adam7: first column and row, steps to the next ones.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def shown(content: bytes, view: View = DEFAULT_VIEW) -> Array:
    """Pixels ``H,W,3`` as the product sees them, at the size of the file."""
    width, height = read_size(content)
    pixels_3HW = decode_pixels(content, size=(height, width), interpolation="nearest", view=view)
    return pixels_3HW.transpose(1, 2, 0)


def smooth(height: int, width: int, channels: int, top: int) -> Array:
    """Integers from 0 to about ``top``, smooth enough for lossy codecs; ``H,W`` of one channel."""
    y, x = np.mgrid[:height, :width]
    planes = [(x * (c + 1) + y * (c + 2)) / ((c + 1) * width + (c + 2) * height) for c in range(channels)]
    values = (np.stack(planes, axis=-1) * top).astype(np.int64)
    return values[..., 0] if channels == 1 else values


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    samples: Array, depth: int, color: int, *, interlaced: bool = False, extra: Sequence[bytes] = ()
) -> bytes:
    """A PNG of samples ``H,W`` or ``H,W,C``; ``extra`` chunks stand before its pixels."""
    height, width = samples.shape[:2]
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(
        b"\0" + _packed(row.reshape(-1), depth)
        for x, y, step_x, step_y in passes
        for row in samples[y::step_y, x::step_x]
        if row.size
    )
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def bmp(
    samples: Array,
    bits: int,
    *,
    palette: Array | None = None,
    top_down: bool = False,
    compression: int = 0,
    masks: tuple[int, ...] = (),
) -> bytes:
    """A BMP of indices or packed pixels ``H,W``, or of ``H,W,3`` and ``H,W,4`` in RGB(A).

    Args:
        samples: Pixels.
        bits: Of a pixel.
        palette: ``N,3``.
        top_down: Whether the first row comes first.
        compression: 0 none, 1 runs of 8 bits, 2 runs of 4 bits, 3 masks.
        masks: Of red, green, blue and alpha.
    """
    height, width = samples.shape[:2]
    rows = samples if top_down else samples[::-1]
    if compression in (1, 2):
        data = b"".join(_runs(row, compression) for row in rows) + b"\0\1"
    else:
        packed = [_bmp_row(row, bits) for row in rows]
        data = b"".join(row + b"\0" * (-len(row) % 4) for row in packed)
    colors = b"" if palette is None else b"".join(bytes((*entry[::-1], 0)) for entry in palette.tolist())
    size = 108 if len(masks) == 4 else 40
    head = struct.pack(
        "<IiiHHIIiiII",
        size,
        width,
        -height if top_down else height,
        1,
        bits,
        compression,
        len(data),
        0,
        0,
        len(colors) // 4,
        0,
    )
    head += struct.pack(f"<{len(masks)}I", *masks) + (b"BGRs" + bytes(48) if size == 108 else b"")
    offset = 14 + len(head) + len(colors)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + head + colors + data


def tiff(samples: Array, **how: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **how)
    return buffer.getvalue()


def tiff_of_tags(tags: Iterable[tuple[int, int, Sequence[int]]], data: bytes, *, order: str = "<") -> bytes:
    """A TIFF with one strip of data and these tags (number, type 3 or 4, values)."""
    all_tags = sorted([*tags, (273, 4, [8]), (279, 4, [len(data)])])
    data += b"\0" * (len(data) % 2)
    values_at, directory, values = 8 + len(data) + 2 + 12 * len(all_tags) + 4, b"", b""
    for tag, kind, numbers in all_tags:
        held = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(held) > 4:
            held, values = struct.pack(order + "I", values_at + len(values)), values + held
        directory += struct.pack(order + "HHI", tag, kind, len(numbers)) + held.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(all_tags)) + directory + b"\0" * 4 + values


def seen_by_tifffile(content: bytes) -> Array:
    """RGB ``H,W,3`` in floats of 0 to 255, by the samples and tags that tifffile reads."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages[0]
        samples, colour, bits = page.asarray(), page.photometric.name, page.bitspersample
        if page.samplesperpixel > 1 and int(page.planarconfig) == 2:
            samples = np.moveaxis(samples, 0, -1)
        if colour == "PALETTE":
            return (page.colormap.T[samples] >> 8).astype(float)
        is_alpha = bool(page.extrasamples) and int(page.extrasamples[0]) in (1, 2)
        is_premultiplied = is_alpha and int(page.extrasamples[0]) == 1
    top = 1.0 if samples.dtype.kind in "fb" else 65535.0 if bits == 32 else 2.0**bits - 1
    values = samples.astype(float).reshape(*samples.shape[:2], -1) / top
    if colour == "MINISWHITE":
        values = 1.0 - values
    if colour == "SEPARATED":
        return (1.0 - values[..., :3]) * (1.0 - values[..., 3:4]) * 255.0
    num_colours = 3 if colour in ("RGB", "YCBCR") else 1
    rgb = np.broadcast_to(values[..., :num_colours], (*values.shape[:2], 3))
    if is_alpha and values[..., num_colours].any():
        alpha = values[..., num_colours, None]
        rgb = (rgb if is_premultiplied else rgb * alpha) + 1.0 - alpha
    return rgb * 255.0


def _packed(samples: Array, bits: int) -> bytes:
    """Samples of 1 to 16 bits as bytes, the upper bits first."""
    if bits == 16:
        return samples.astype(">u2").tobytes()
    places = (samples[:, None].astype(np.int64) >> np.arange(bits)[::-1]) & 1
    return np.packbits(places.astype(np.uint8).reshape(-1)).tobytes()


def _bmp_row(row: Array, bits: int) -> bytes:
    if row.ndim == 2:
        return row[:, [2, 1, 0, *range(3, row.shape[1])]].astype(np.uint8).tobytes()
    if bits in (16, 32):
        return row.astype(f"<u{bits // 8}").tobytes()
    return _packed(row, bits)


def _runs(row: Array, compression: int) -> bytes:
    """Runs of one pixel each, and the end of the row."""
    return b"".join(bytes((1, value if compression == 1 else value << 4)) for value in row.tolist()) + b"\0\0"
