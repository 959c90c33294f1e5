"""Every kind of image file that people have, and that attackers send."""

import contextlib
import io
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from ship.errors import ConfigError, ImageError
from ship.images import decode_image, read_image

SIZE = (8, 12)  # height, width


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def gradient(height: int = 40, width: int = 60) -> Image.Image:
    """Red rises to the right, green rises downwards."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // (width - 1), y * 255 // (height - 1)
    return Image.fromarray(np.stack([red, green, np.full_like(x, 30)], axis=-1).astype(np.uint8))


def expected(image: Image.Image, size: tuple[int, int] = SIZE) -> torch.Tensor:
    resized = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def png(width: int, height: int, bit_depth: int, color: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_equal_pillows_bicubic(format_: str) -> None:
    image = decode_image(encode(gradient(), format_), size=SIZE)

    assert image.dtype == torch.uint8
    assert image.shape == (3, *SIZE)
    assert image.is_contiguous()
    assert torch.equal(image, expected(gradient()))


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(format_: str) -> None:
    image = decode_image(encode(gradient(), format_, quality=95), size=SIZE)

    # Lossy coding at quality 95 moves smooth pixels by a few of 255 steps.
    assert (image.int() - expected(gradient()).int()).abs().max() <= 8


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_gray_bits_and_palettes(mode: str) -> None:
    source = gradient().convert(mode)

    assert torch.equal(decode_image(encode(source, "PNG"), size=SIZE), expected(source))


def test_cmyk_jpeg() -> None:
    source = Image.new("CMYK", (30, 20), (0, 255, 255, 0))

    red, green, blue = decode_image(encode(source, "JPEG", quality=95), size=SIZE).float().mean(dim=(1, 2))
    assert red > 245
    assert green < 10
    assert blue < 10


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode: str) -> None:
    source = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    source.paste((0, 0, 0, 255), (0, 0, 15, 20))
    if mode == "P":
        source = source.quantize(4)
    content = encode(source.convert(mode), "PNG")

    image = decode_image(content, size=(20, 30), interpolation="nearest")
    assert image[:, :, :15].max() == 0
    assert image[:, :, 15:].min() == 255


def test_transparent_palette_index_given_as_bytes() -> None:
    source = gradient().quantize(8)
    content = encode(source, "PNG", transparency=bytes([0, 255, 255, 128, 255, 255, 255, 255]))

    assert decode_image(content, size=SIZE).shape == (3, *SIZE)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(format_: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (4, 1))

    image = decode_image(encode(Image.fromarray(ramp), format_), size=(4, 64), interpolation="nearest")
    assert torch.equal(image[0, 0], torch.from_numpy((ramp[0] / 257 + 0.5).astype(np.uint8)))


def test_big_endian_16_bit_tiff() -> None:
    source = Image.frombytes("I;16B", (4, 4), np.full((4, 4), 257 * 100, dtype=">u2").tobytes())
    content = encode(source, "TIFF")
    assert content.startswith(b"MM")

    assert decode_image(content, size=(2, 2)).unique().tolist() == [100]


def test_16_bit_colour_png() -> None:
    row = b"\0" + b"\x80\x00\x40\x00\xff\xff" * 4

    image = decode_image(png(4, 4, 16, 2, row * 4), size=(2, 2))
    assert image[:, 0, 0].tolist() == [128, 64, 255]


def test_32_bit_integers_and_floats() -> None:
    integers = Image.fromarray(np.full((4, 4), 257 * 50, dtype=np.int32))
    floats = Image.fromarray(np.full((4, 4), 0.2, dtype=np.float32))

    assert decode_image(encode(integers, "TIFF"), size=(2, 2)).unique().tolist() == [50]
    assert decode_image(encode(floats, "TIFF"), size=(2, 2)).unique().tolist() == [51]


@pytest.mark.parametrize("value", [-1.0, 300.0, float("nan")])
def test_gray_values_without_a_known_scale_are_refused(value: float) -> None:
    content = encode(Image.fromarray(np.full((4, 4), value, dtype=np.float32)), "TIFF")

    with pytest.raises(ImageError, match="save the image with 8 or 16 bits") as caught:
        decode_image(content, size=(2, 2))
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format_ == "WEBP" else {}
    content = encode(gradient(), format_, exif=exif, **options)
    tagged = gradient()
    tagged.getexif()[0x0112] = orientation

    assert torch.equal(decode_image(content, size=SIZE), expected(ImageOps.exif_transpose(tagged)))


def test_broken_exif_does_not_spoil_the_pixels() -> None:
    content = encode(gradient(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")

    assert torch.equal(decode_image(content, size=SIZE), expected(gradient()))


@pytest.mark.parametrize("format_", ["TIFF", "PNG", "WEBP"])
def test_first_frame_of_several(format_: str) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    options = {"lossless": True} if format_ == "WEBP" else {}
    content = encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)

    assert decode_image(content, size=(2, 2))[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_truncated_files_are_corrupt(format_: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), format_)

    with pytest.raises(ImageError) as caught:
        decode_image(content[: int(len(content) * share)], size=SIZE)
    assert caught.value.kind == "corrupt"


def test_broken_bytes_in_the_middle_are_corrupt() -> None:
    content = bytearray(encode(gradient(), "PNG"))
    content[len(content) // 2] ^= 0xFF

    with pytest.raises(ImageError, match="broken PNG file") as caught:
        decode_image(bytes(content), size=SIZE)
    assert caught.value.kind == "corrupt"


def test_empty_file() -> None:
    with pytest.raises(ImageError, match="0 bytes") as caught:
        decode_image(b"", size=SIZE)
    assert caught.value.kind == "corrupt"


@pytest.mark.parametrize(
    "content",
    [b"hello", encode(gradient(), "GIF"), b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"],
    ids=["text", "gif", "pdf", "eps", "svg"],
)
def test_other_formats_are_unsupported(content: bytes) -> None:
    with pytest.raises(ImageError, match="expected JPEG, PNG, WEBP, BMP, TIFF") as caught:
        decode_image(content, size=SIZE)
    assert caught.value.kind == "unsupported"


def test_formats_can_be_narrowed() -> None:
    with pytest.raises(ImageError, match="expected PNG, found BMP") as caught:
        decode_image(encode(gradient(), "BMP"), size=SIZE, formats=("PNG",))
    assert caught.value.kind == "unsupported"


def test_pixels_are_counted_before_decoding() -> None:
    """The pixels of this file are missing: only a decoder would notice."""
    content = png(9000, 9000, 1, 0, b"")

    with pytest.raises(ImageError, match="9000 x 9000") as caught:
        decode_image(content, size=SIZE)
    assert caught.value.kind == "too_large"
    with pytest.raises(ImageError) as caught:
        decode_image(content, size=SIZE, max_pixels=100_000_000)
    assert caught.value.kind == "corrupt"


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_pillows_own_bomb_limits_stay_quiet(side: int) -> None:
    """Pillow warns from 89 and raises from 179 million pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            decode_image(png(side, side, 1, 0, b""), size=SIZE)
    assert caught.value.kind == "too_large"


def test_png_text_bomb_is_not_unpacked() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "a" * 20_000_000, zip=True)

    assert torch.equal(decode_image(encode(gradient(), "PNG", pnginfo=info), size=SIZE), expected(gradient()))


def test_random_damage_never_escapes_as_another_error() -> None:
    random = np.random.default_rng(0)
    for format_ in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        whole = encode(gradient(), format_)
        for _ in range(60):
            content = np.frombuffer(whole, dtype=np.uint8).copy()
            content[random.integers(4, len(content), 8)] = random.integers(0, 256, 8)
            with contextlib.suppress(ImageError):
                image = decode_image(content.tobytes(), size=SIZE, max_pixels=1_000_000)
                assert image.shape == (3, *SIZE)


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    content = encode(gradient(), "TIFF")
    before = list(warnings.filters)

    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda _: decode_image(content, size=SIZE), range(64)))

    assert warnings.filters == before
    assert all(torch.equal(image, images[0]) for image in images)


def test_one_pixel_and_extreme_aspect_ratios() -> None:
    assert decode_image(encode(Image.new("RGB", (1, 1), "red"), "PNG"), size=SIZE)[0].min() == 255
    assert decode_image(encode(Image.new("RGB", (5000, 1), "red"), "PNG"), size=SIZE)[0].min() == 255


def test_unknown_interpolation() -> None:
    with pytest.raises(ConfigError, match="expected one of nearest"):
        decode_image(encode(gradient(), "PNG"), size=SIZE, interpolation="cubic")


def test_kind_survives_pickling() -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(b"hello", size=SIZE)
    assert pickle.loads(pickle.dumps(caught.value)).kind == "unsupported"


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path: Path) -> None:
    image = gradient()
    content, pixels = encode(image, "PNG"), np.asarray(image)
    (tmp_path / "a.png").write_bytes(content)
    with_alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    forms = [content, tmp_path / "a.png", str(tmp_path / "a.png"), image, pixels, pixels / 255.0, with_alpha]
    for form in forms:
        assert torch.equal(read_image(form, size=SIZE), expected(image)), type(form)


def test_an_opened_image_is_turned_as_its_file_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(gradient(), "JPEG", exif=exif, quality=95)
    opened = Image.open(io.BytesIO(content))
    assert torch.equal(read_image(opened, size=SIZE), decode_image(content, size=SIZE))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gray_arrays_span_their_own_range(dtype: type) -> None:
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}[dtype]
    for array in (np.full((4, 5), top, dtype), np.full((4, 5, 1), top, dtype)):
        assert bool((read_image(array, size=SIZE) == 255).all())


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (3, "expected a path, bytes, a PIL image or a numpy array, found int"),
        ("nothing.png", "the file cannot be read"),
        (b"GIF89a", "expected JPEG, PNG"),
        (np.zeros((3, 8, 8), np.uint8), "expected an array of shape H,W, H,W,3 or H,W,4"),
        (np.zeros((0, 8, 3), np.uint8), "expected an array of shape"),
        (np.zeros((8, 8, 3), np.int64), "found int64 of shape"),
        (np.full((8, 8, 3), 255.0), "floats from 255 to 255: expected 0 to 1"),
        (np.full((8, 8, 3), np.nan), "floats from nan to nan"),
        (Image.new("RGB", (10_000, 6_000)), "more than the 50000000 that are allowed"),
    ],
)
def test_what_is_no_image_is_named(image: object, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        read_image(image, size=SIZE)
