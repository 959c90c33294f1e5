"""Decoding of images to arrays. Loads without torch.

It owns the limits (formats by content, pixels by header) and the fit to a network's input; ``side_notes``
parts pixels from notes, ``tiff``, ``depth`` and ``colors`` make RGB of every form. It knows nothing of data
sets or normalisation; the backbone normalises.
"""

import io
import os
import struct
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ship.errors import ConfigError, ImageError
from ship.images.colors import (
    mend_byte_order,
    rawmode_of,
    restore_depth,
    set_rawmode,
    to_rgb,
    with_unused_alpha,
)
from ship.images.depth import Depth
from ship.images.quiet_pillow import QUIET_PILLOW
from ship.images.side_notes import Pixels, as_bytes_of_grey_alpha, part
from ship.images.work import check_work
from ship.settings.view import DEFAULT_VIEW, MAX_PIXELS, Tile, View

__all__ = [
    "ALLOWED_FORMATS",
    "INTERPOLATIONS",
    "MAX_PIXELS",
    "ImageLike",
    "decode_pixels",
    "read_pixels",
    "read_size",
]

# A path, the bytes of an image file, a PIL image, or an array ``H,W`` or ``H,W,C``.
ImageLike = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# Mid-grey, which is close to the mean of the pictures that backbones were trained on.
_PADDING = (128, 128, 128)

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# A picture, and what its sides were divided by when it was decoded.
_Shown = tuple[Image.Image, int]
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_pixels(
    content: bytes,
    *,
    size: tuple[int, int],
    interpolation: str = "bicubic",
    max_pixels: int = MAX_PIXELS,
    formats: Collection[str] = ALLOWED_FORMATS,
    view: View | None = None,
    on_open: Callable[[int], None] = lambda num_pixels: None,
) -> NDArray[np.uint8]:
    """Decode an image file and fit it to the input of a network by a task's view.

    The default view resizes the whole picture without regard to its aspect ratio, as the paper does.

    The EXIF orientation is applied, transparent pixels are laid on white (unless all are transparent), deep
    values are scaled to 8 bits, and of several frames the first is taken. No other note is read.

    Args:
        content: The file's bytes.
        size: Height and width of the result in pixels.
        interpolation: Name in ``INTERPOLATIONS``; shrinking is antialiased.
        max_pixels: Refuse images with more pixels than this, before they are decoded.
        formats: Names out of ``ALLOWED_FORMATS``; the content decides, not a file name.
        view: Part of the picture that is looked at, its tiles and its bits. None for a picture alone, without
            a task: all of it, by the least depth that holds the samples of a 16-bit file without tags.
            Pictures of a task always have its view, so that one is not read otherwise than the next.
        on_open: Called with the file's number of pixels before they are decoded.

    Returns:
        uint8, RGB, ``3,H,W``; ``T,3,H,W`` of a view of several tiles.

    Raises:
        ImageError: The image is refused; ``kind`` says which way.
        ConfigError: ``interpolation`` is unknown.
    """
    format_ = _sniff(content, formats)

    def open_rgb() -> _Shown:
        pixels = _parted(content, format_)
        with _open(pixels, format_) as image:
            on_open(image.width * image.height)
            _check_size(image, max_pixels)
            by = 1
            if format_ == "JPEG" and view is not None:
                by = view.reduction(_turned(image.size, pixels.orientation), size)
            if by > 1:
                image.draft(None, (image.width // by, image.height // by))
            return _load_file(image, pixels, format_, view), by

    return _fit(open_rgb, size, interpolation, view or DEFAULT_VIEW, f"{format_} file")


def read_pixels(
    image: ImageLike,
    *,
    size: tuple[int, int],
    interpolation: str = "bicubic",
    max_pixels: int = MAX_PIXELS,
    view: View | None = None,
) -> NDArray[np.uint8]:
    """An image in any of the forms that a notebook has, by the same steps as ``decode_pixels``.

    Args:
        image: A path, the bytes of a file, a PIL image, or an array: ``H,W`` or ``H,W,C``, uint8 in 0..255,
            floats in 0..1; gray ones may be uint16.
        size: Height and width of the result in pixels.
        interpolation: Name in ``INTERPOLATIONS``.
        max_pixels: Refuse images with more pixels than this.
        view: See ``decode_pixels``.

    Returns:
        uint8, RGB, ``3,H,W``; ``T,3,H,W`` of a view of several tiles.

    Raises:
        ImageError: The image is refused; ``kind`` says which way.
        ConfigError: ``interpolation`` is unknown.
    """
    if isinstance(image, (str, os.PathLike)):
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            raise ImageError(f"the file cannot be read: {error}", "unsupported") from error
    if isinstance(image, bytes):
        return decode_pixels(image, size=size, interpolation=interpolation, max_pixels=max_pixels, view=view)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise ImageError(
            f"expected a path, bytes, a PIL image or a numpy array, found {type(image).__name__}",
            "unsupported",
        )
    opened = image

    def load_rgb() -> _Shown:
        _check_size(opened, max_pixels)
        return _load_opened(opened, view), 1

    return _fit(load_rgb, size, interpolation, view or DEFAULT_VIEW, "image")


def _from_array(array: np.ndarray) -> Image.Image:
    is_gray = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    is_color = array.ndim == 3 and array.shape[2] in (3, 4)
    is_known = array.dtype == np.uint8 or array.dtype.kind == "f" or (is_gray and array.dtype == np.uint16)
    if not (is_gray or is_color) or not array.size or not is_known:
        raise ImageError(
            "expected an array of shape H,W, H,W,3 or H,W,4, uint8 or floats from 0 to 1 (gray also uint16), "
            f"found {array.dtype} of shape {array.shape}",
            "unsupported",
        )
    if is_gray:
        array = array.reshape(array.shape[:2])
        return Image.fromarray(array.astype(np.float32) if array.dtype.kind == "f" else array)
    if array.dtype.kind == "f":
        if not (array.min() >= 0.0 and array.max() <= 1.0):
            raise ImageError(
                f"floats from {array.min():g} to {array.max():g}: expected 0 to 1; divide by 255",
                "unsupported",
            )
        array = (array * 255.0 + 0.5).astype(np.uint8)
    return Image.fromarray(array)


def _fit(
    open_rgb: Callable[[], _Shown],
    size: tuple[int, int],
    interpolation: str,
    view: View,
    what: str,
) -> NDArray[np.uint8]:
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(
            f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}"
        )
    with QUIET_PILLOW:
        try:
            image, by = open_rgb()
            tiles = [
                np.array(_fit_tile(image, by, tile, size, INTERPOLATIONS[interpolation]))
                for tile in view.tiles_of((image.width * by, image.height * by), size)
            ]
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError("too large to decode in memory", "too_large") from error
        # A boundary: Pillow's plugins raise all kinds of errors for a hostile or broken file (OSError,
        # SyntaxError, ValueError, struct.error, IndexError, ...).
        except Exception as error:
            raise ImageError(f"broken {what}: {_reason(error)}", "corrupt") from error
    pixels_T3HW = np.ascontiguousarray(np.stack(tiles).transpose(0, 3, 1, 2))
    return pixels_T3HW if len(tiles) > 1 else pixels_T3HW[0]


def _fit_tile(
    image: Image.Image, by: int, tile: Tile, size: tuple[int, int], resampling: Image.Resampling
) -> Image.Image:
    """One tile of a picture, whose sides were divided by ``by``, as the network's input."""
    x0, y0, x1, y1 = tile.source
    hull = x0 // by, y0 // by, -(-x1 // by), -(-y1 // by)
    if hull != (0, 0, *image.size):
        # A copy: Pillow's own `box` would let a filter look beyond it.
        image = image.crop(hull)
    box = x0 / by - hull[0], y0 / by - hull[1], x1 / by - hull[0], y1 / by - hull[1]
    left, top, right, bottom = tile.target
    fitted = image.resize((right - left, bottom - top), resampling, box=box)
    if fitted.size == (size[1], size[0]):
        return fitted
    padded = Image.new("RGB", (size[1], size[0]), _PADDING)
    padded.paste(fitted, (left, top))
    return padded


def read_size(content: bytes) -> tuple[int, int]:
    """Width and height of an image file as it is shown, by its header.

    Raises:
        ImageError: The image is refused; ``kind`` says which way.
    """
    format_ = _sniff(content, ALLOWED_FORMATS)
    with QUIET_PILLOW:
        try:
            pixels = _parted(content, format_)
            with _open(pixels, format_) as image:
                return _turned(image.size, pixels.orientation)
        except ImageError:
            raise
        # A boundary, as in ``decode_pixels``.
        except Exception as error:
            raise ImageError(f"broken {format_} file: {_reason(error)}", "corrupt") from error


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a file as it is shown."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _sniff(content: bytes, formats: Collection[str]) -> str:
    """The format by its first bytes, so that Pillow tries no parser but the one that was allowed."""
    if not content:
        raise ImageError("the file is empty (0 bytes)", "corrupt")
    found = None
    if content.startswith(b"\xff\xd8\xff"):
        found = "JPEG"
    elif content.startswith(b"\x89PNG\r\n\x1a\n"):
        found = "PNG"
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        found = "WEBP"
    elif content.startswith(b"BM"):
        found = "BMP"
    elif content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        found = "TIFF"
    if found is None or found not in formats:
        what = found or f"content that starts with {content[:8]!r}"
        raise ImageError(f"expected {', '.join(formats)}, found {what}", "unsupported")
    return found


def _parted(content: bytes, format_: str) -> Pixels:
    check_work(content, format_)
    try:
        return part(content, format_)
    except struct.error:
        # It ends early: its decoder says so.
        return Pixels(content)


def _open(pixels: Pixels, format_: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(pixels.content), formats=[format_])
    except UnidentifiedImageError as error:
        if pixels.page is None:
            raise
        raise ImageError(
            f"a TIFF of {pixels.page.form} is not read; save it with 8 or 16 bits, RGB or grey, unsigned",
            "unsupported",
        ) from error


def _load_file(image: Image.Image, pixels: Pixels, format_: str, view: View | None) -> Image.Image:
    """The pixels of a file as they are shown."""
    page, stated = pixels.page, None if view is None else view.bits
    depth = Depth(
        stated=stated,
        container=16 if page is None else page.container,
        tagged=pixels.significant_bits if page is None else page.tagged,
        may_be_shifted=page is None,
    )
    mend_byte_order(image)
    rawmode = rawmode_of(image)
    image.load()

    def reopen(rawmode: str) -> Image.Image:
        return _reopen(pixels, format_, rawmode)

    image, rawmode = with_unused_alpha(image, rawmode, reopen)
    image = restore_depth(image, rawmode, depth, reopen)
    rgb = to_rgb(
        image,
        depth,
        is_inverted=page is not None and page.is_inverted,
        is_signed=page is not None and page.is_signed and page.container == 16,
    )
    # A TIFF turns itself by its tag.
    transpose = _TRANSPOSE_BY_ORIENTATION.get(pixels.orientation)
    return rgb if transpose is None else rgb.transpose(transpose)


def _reopen(pixels: Pixels, format_: str, rawmode: str) -> Image.Image:
    if rawmode.startswith("LA"):
        return _open(pixels._replace(content=as_bytes_of_grey_alpha(pixels.content)), format_)
    image = _open(pixels, format_)
    set_rawmode(image, rawmode)
    return image


def _load_opened(image: Image.Image, view: View | None) -> Image.Image:
    """The pixels of an image that a caller opened or made."""
    depth = Depth(stated=None if view is None else view.bits)
    rawmode = rawmode_of(image)
    image.load()
    # After loading: TIFF turns itself by its tag and drops it, PNG may carry EXIF after its pixels.
    transpose = _transpose_of(image)
    rgb = to_rgb(restore_depth(image, rawmode, depth, None), depth)
    return rgb if transpose is None else rgb.transpose(transpose)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} = {width * height} pixels, more than the {max_pixels} that are allowed; "
            "SHIP_MAX_PIXELS sets another limit",
            "too_large",
        )


def _transpose_of(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TRANSPOSE_BY_ORIENTATION.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # A boundary: an unreadable side note (any error, see above) does not spoil readable pixels.
    except Exception:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its header cannot be read"
    return str(error) or type(error).__name__
