"""Every form of each format: as a second decoder reads it, or as it was written; else refused by name."""

import io
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from ship.errors import ImageError
from ship.images.decoding import read_size
from tests.unit.ship.images.factory import (
    Array,
    bmp,
    chunk,
    png,
    seen_by_tifffile,
    shown,
    smooth,
    tiff,
    tiff_of_tags,
)

HEIGHT, WIDTH = 23, 37
# Rounding of 8 bits; colours of 16 bits lose their lower ones before alpha and black are multiplied in.
EXACT, DEEP = 1.01, 2.1
COLORMAP = (np.random.default_rng(1).integers(0, 256, (3, 256)) * 257).astype(np.uint16)


def draw(channels: int, top: float, dtype: Any) -> Array:
    """Uses the whole range: the last pixel is white."""
    values = smooth(HEIGHT, WIDTH, channels, 65535) / 65535
    values[-1, -1] = 1.0
    return (values * top).astype(dtype)


RGB = {"photometric": "rgb"}
# Samples and how tifffile writes them.
TIFFS: dict[str, tuple[Array, dict[str, Any]]] = {
    "1 bit": (draw(1, 1, bool), {}),
    "1 bit, 0 is white": (draw(1, 1, bool), {"photometric": "miniswhite"}),
    "8 bits": (draw(1, 255, np.uint8), {}),
    "8 bits, 0 is white": (draw(1, 255, np.uint8), {"photometric": "miniswhite"}),
    "16 bits": (draw(1, 65535, np.uint16), {}),
    "16 bits, 0 is white": (draw(1, 65535, np.uint16), {"photometric": "miniswhite"}),
    "32 bits": (draw(1, 65535, np.uint32), {}),
    "32 bits signed": (draw(1, 65535, np.int32), {}),
    "float": (draw(1, 1, np.float32), {}),
    "float, 0 is white": (draw(1, 1, np.float32), {"photometric": "miniswhite"}),
    "grey, alpha": (draw(2, 255, np.uint8), {"extrasamples": ["unassalpha"], "photometric": "minisblack"}),
    "grey, other": (draw(2, 255, np.uint8), {"extrasamples": ["unspecified"], "photometric": "minisblack"}),
    "palette": (draw(1, 255, np.uint8), {"photometric": "palette", "colormap": COLORMAP}),
    "RGB": (draw(3, 255, np.uint8), RGB),
    "RGB of 16 bits": (draw(3, 65535, np.uint16), RGB),
    "RGBA": (draw(4, 255, np.uint8), {**RGB, "extrasamples": ["unassalpha"]}),
    "RGBA of 16 bits": (draw(4, 65535, np.uint16), {**RGB, "extrasamples": ["unassalpha"]}),
    "RGB, other": (draw(4, 255, np.uint8), {**RGB, "extrasamples": ["unspecified"]}),
    "CMYK": (draw(4, 255, np.uint8), {"photometric": "separated"}),
    "CMYK of 16 bits": (draw(4, 65535, np.uint16), {"photometric": "separated"}),
}
# What tifffile reads and the product refuses, in part or altogether.
UNREAD: dict[str, tuple[Array, dict[str, Any]]] = {
    "8 bits signed": (draw(1, 127, np.int8), {}),
    "16 bits signed": (draw(1, 32767, np.int16), {}),
    "half": (draw(1, 1, np.float16), {}),
    "double": (draw(1, 1, np.float64), {}),
    "RGB of floats": (draw(3, 1, np.float32), RGB),
    "RGB of doubles": (draw(3, 1, np.float64), RGB),
    "64 bits": (draw(1, 65535, np.uint64), {}),
    "palette of 16 bits": (
        draw(1, 255, np.uint16),
        {"photometric": "palette", "colormap": np.zeros((3, 65536), np.uint16)},
    ),
}
LAYOUTS: dict[str, dict[str, Any]] = {"strip": {}, "rows": {"rowsperstrip": 7}, "tiles": {"tile": (16, 16)}}
CODECS: dict[str, dict[str, Any]] = {
    "none": {},
    "lzw": {"compression": "lzw"},
    "lzw with differences": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib"},
    "packbits": {"compression": "packbits"},
    "zstd": {"compression": "zstd"},
}


@pytest.mark.parametrize("form", [*TIFFS, *UNREAD])
def test_tiffs_are_read_as_tifffile_reads_them(form: str) -> None:
    samples, how = {**TIFFS, **UNREAD}[form]
    planar = ("contig", "separate") if samples.ndim == 3 else (None,)
    num_read, refused = 0, {}
    for layout, codec, order, is_big, planes in product(LAYOUTS, CODECS, "<>", (False, True), planar):
        if "differences" in codec and samples.dtype in (bool, np.uint64):
            continue
        apart = np.moveaxis(samples, -1, 0) if planes == "separate" else samples
        content = tiff(
            apart,
            **{**how, **LAYOUTS[layout], **CODECS[codec]},
            byteorder=order,
            bigtiff=is_big,
            planarconfig=planes,
        )
        named = (layout, codec, order, is_big, planes)
        try:
            found = shown(content)
        except ImageError as error:
            refused[error.kind] = str(error)
            continue
        tolerance = DEEP if samples.dtype == np.uint16 else EXACT
        assert np.abs(found - seen_by_tifffile(content)).max() <= tolerance, named
        num_read += 1
    assert set(refused) <= {"unsupported"}, refused
    assert all("-bit" in text or "signed" in text for text in refused.values()), "the form is named"
    if form in UNREAD:
        assert num_read == 0
    else:
        assert num_read >= 36, "few are refused"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("photometric", ["minisblack", "rgb", "ycbcr"])
def test_jpeg_in_tiff(photometric: str, layout: str) -> None:
    samples = draw(1 if photometric == "minisblack" else 3, 255, np.uint8)
    content = tiff(samples, photometric=photometric, compression="jpeg", **LAYOUTS[layout])
    # tifffile makes RGB of YCbCr.
    second = tifffile.imread(io.BytesIO(content)).reshape(HEIGHT, WIDTH, -1).astype(int)
    assert np.abs(shown(content) - second).max() <= EXACT


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 5])
def test_12_packed_bits_are_12_bits(order: str, compression: int) -> None:
    samples = draw(1, 4095, np.uint16)
    data = b"".join(imagecodecs.packints_encode(row, 12) for row in samples)
    content = tiff_of_tags(
        [
            (256, 3, [WIDTH]),
            (257, 3, [HEIGHT]),
            (258, 3, [12]),
            (259, 3, [compression]),
            (262, 3, [1]),
            (277, 3, [1]),
            (278, 3, [HEIGHT]),
        ],
        imagecodecs.lzw_encode(data) if compression == 5 else data,
        order=order,
    )
    if order == ">":
        with pytest.raises(ImageError, match="12-bit unsigned integers"):
            shown(content)
        return
    assert np.abs(shown(content) - samples[..., None] / 4095 * 255).max() <= 0.51


@pytest.mark.parametrize("bits", [1, 8])
def test_bits_from_the_lowest_on(bits: int) -> None:
    """Fill order 2: a fax's."""
    samples = draw(1, 2**bits - 1, np.uint8)
    rows = np.packbits(samples, axis=1) if bits == 1 else samples
    data = np.packbits(np.unpackbits(rows.reshape(-1, 1), axis=1)[:, ::-1], axis=1).tobytes()
    tags = [(256, 3, [WIDTH]), (257, 3, [HEIGHT]), (258, 3, [bits]), (262, 3, [1]), (266, 3, [2])]
    found = shown(tiff_of_tags([*tags, (277, 3, [1]), (278, 3, [HEIGHT])], data))
    assert np.array_equal(found[..., 0], samples * (255 // (2**bits - 1)))


def test_subsampled_colours_that_are_not_compressed_are_refused() -> None:
    tags = [(256, 3, [4]), (257, 3, [4]), (258, 3, [8, 8, 8]), (259, 3, [1]), (262, 3, [6])]
    content = tiff_of_tags([*tags, (277, 3, [3]), (278, 3, [4]), (530, 3, [2, 2])], bytes(24))
    with pytest.raises(ImageError, match="8-bit unsigned integers, YCbCr, 3 samples a pixel"):
        shown(content)


def test_the_first_of_several_pages() -> None:
    pages = np.stack([draw(3, 255, np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.uint8)])
    assert np.array_equal(shown(tiff(pages, photometric="rgb")), pages[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_has_its_size_as_shown(orientation: int) -> None:
    content = tiff(draw(3, 255, np.uint8), photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    assert read_size(content) == ((HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_pngs_are_read_as_imagecodecs_reads_them(depth: int, interlaced: bool) -> None:
    top = 2**depth - 1
    colours = {0: 1} if depth < 8 else {0: 1, 2: 3, 4: 2, 6: 4}
    for colour, channels in colours.items():
        samples = draw(channels, top, np.uint16)
        content = png(samples, depth, colour, interlaced=interlaced)
        second = imagecodecs.png_decode(content).reshape(HEIGHT, WIDTH, channels).astype(float)
        second /= 255 if depth < 16 else 65535
        grey_or_rgb, alpha = (second[..., :-1], second[..., -1:]) if channels in (2, 4) else (second, 1.0)
        expected = (grey_or_rgb * alpha + 1.0 - alpha) * 255
        found = shown(content)
        assert np.abs(found - expected).max() <= (DEEP if depth == 16 and channels > 1 else EXACT), colour


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_colour_is_white_at_every_depth(depth: int) -> None:
    top = 2**depth - 1
    for colour, channels in {0: 1, 2: 3}.items():
        if channels == 3 and depth < 8:
            continue
        samples = draw(channels, top, np.uint16).reshape(HEIGHT, WIDTH, channels)
        samples[5:9] = key = samples[7, 7]
        content = png(samples, depth, colour, extra=[chunk(b"tRNS", key.astype(">u2").tobytes())])
        expected = np.broadcast_to(samples / top * 255, (HEIGHT, WIDTH, 3)).copy()
        expected[(samples == key).all(axis=-1)] = 255
        assert np.abs(shown(content) - expected).max() <= EXACT


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_pngs(depth: int) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (2**depth, 3), dtype=np.uint8)
    samples = draw(1, 2**depth - 1, np.uint8)
    content = png(samples, depth, 3, extra=[chunk(b"PLTE", palette.tobytes())])
    assert np.array_equal(shown(content), palette[samples])


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("kind", ["colours", "dark greys", "greys"])
@pytest.mark.parametrize(("bits", "number"), [(1, 2), (4, 2), (4, 3), (4, 16), (8, 2), (8, 16), (8, 256)])
def test_palettes_of_bmps(bits: int, number: int, kind: str, top_down: bool) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (number, 3))
    if kind != "colours":
        greys = np.arange(number) if kind == "dark greys" else np.linspace(0, 255, number).astype(int)
        palette = np.repeat(greys[:, None], 3, axis=1)
    samples = draw(1, number - 1, np.uint8)
    for compression in (0, *({8: (1,), 4: (2,)}.get(bits, ()))):
        content = bmp(samples, bits, palette=palette, top_down=top_down, compression=compression)
        assert np.array_equal(shown(content), palette[samples]), compression


@pytest.mark.parametrize("top_down", [False, True])
def test_colours_of_bmps(top_down: bool) -> None:
    rgb = draw(3, 255, np.int64)
    four = np.dstack([rgb, np.full((HEIGHT, WIDTH), 255)])
    of_15, of_16 = rgb >> 3, rgb >> np.array([3, 2, 3])
    masks = (0xFF0000, 0xFF00, 0xFF)
    for content, expected in (
        (bmp(rgb, 24, top_down=top_down), rgb),
        (bmp(four, 32, top_down=top_down), rgb),
        (bmp(four, 32, top_down=top_down, compression=3, masks=masks), rgb),
        (bmp(four, 32, top_down=top_down, compression=3, masks=(*masks, 0xFF000000)), rgb),
        (bmp(of_15 @ [1024, 32, 1], 16, top_down=top_down), of_15 / 31 * 255),
        (
            bmp(of_16 @ [2048, 32, 1], 16, top_down=top_down, compression=3, masks=(0xF800, 0x7E0, 0x1F)),
            of_16 / [31, 63, 31] * 255,
        ),
    ):
        assert np.abs(shown(content) - expected).max() <= EXACT


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 2}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_are_read_as_imagecodecs_reads_them(mode: str, how: dict[str, Any]) -> None:
    content, file = b"", io.BytesIO()
    Image.fromarray(draw(3, 255, np.uint8)).convert(mode).save(file, "JPEG", quality=90, **how)
    content = file.getvalue()
    second = imagecodecs.jpeg8_decode(content).reshape(HEIGHT, WIDTH, -1).astype(float)
    if mode == "CMYK":
        # Adobe's are stored inverted.
        second = second[..., :3] * second[..., 3:] / 255
    assert np.abs(shown(content) - second).max() <= DEEP


def test_jpegs_of_12_bits_and_of_two_components_are_refused() -> None:
    content = imagecodecs.jpeg8_encode(draw(1, 4095, np.uint16), bitspersample=12)
    with pytest.raises(ImageError, match="a JPEG of 12 bits and 1 components is not read") as caught:
        shown(content)
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("lossless", [False, True])
def test_webps_are_read_as_imagecodecs_reads_them(lossless: bool, alpha: bool) -> None:
    samples = draw(4 if alpha else 3, 255, np.uint8)
    content = imagecodecs.webp_encode(samples, lossless=lossless, level=90)
    second = imagecodecs.webp_decode(content).astype(float) / 255
    opacity = second[..., 3:] if alpha else 1.0
    assert np.abs(shown(content) - (second[..., :3] * opacity + 1 - opacity) * 255).max() <= EXACT
