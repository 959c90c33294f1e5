"""Conversion of every colour mode of an image to RGB of 8 bits."""

import re
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile

from ship.errors import ImageError
from ship.images.depth import Depth, to_8_bits

__all__ = [
    "Reopen",
    "mend_byte_order",
    "rawmode_of",
    "restore_depth",
    "set_rawmode",
    "to_rgb",
    "with_unused_alpha",
]

# The same image, not loaded yet, its bytes to be taken in another raw mode of Pillow.
Reopen = Callable[[str], Image.Image]

# Colours of 16 bits, of which Pillow takes the upper 8; the last letter is the byte order.
_DEEP = re.compile(r"(RGB|RGBX|RGBA|RGBa|CMYK|LA);16([BLN])")
_IS_LITTLE = sys.byteorder == "little"
# libtiff gives native order, whatever the file's is.
_NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}
# Below it, samples are less than a quarter of the range.
_QUARTER = 64


def rawmode_of(image: Image.Image) -> str:
    """Pillow's raw mode of an image that is not loaded yet; empty if it has none."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    args = image.tile[0].args
    found = args[0] if isinstance(args, tuple) and args else args
    return found if isinstance(found, str) else ""


def set_rawmode(image: Image.Image, rawmode: str) -> None:
    """Have an image that is not loaded yet take its bytes in another raw mode."""
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]


def mend_byte_order(image: Image.Image) -> None:
    """Have compressed TIFFs of deep samples in big-endian order read as libtiff gives them."""
    native = _NATIVE.get(rawmode_of(image))
    if native is None or not isinstance(image, ImageFile.ImageFile):
        return
    if image.tile[0].codec_name == "libtiff":
        set_rawmode(image, native)


def with_unused_alpha(image: Image.Image, rawmode: str, reopen: Reopen) -> tuple[Image.Image, str]:
    """A loaded image and its raw mode; not divided by its alpha, if that is 0 everywhere."""
    if not rawmode.startswith("RGBa") or image.getchannel("A").getextrema() != (0, 0):
        return image, rawmode
    rawmode = rawmode.replace("RGBa", "RGBA")
    return _loaded(reopen(rawmode)), rawmode


def restore_depth(image: Image.Image, rawmode: str, depth: Depth, reopen: Reopen | None) -> Image.Image:
    """A loaded image with the depth that its samples have, if they are colours of 16 bits.

    Args:
        image: The upper 8 bits of each sample.
        rawmode: See ``rawmode_of``.
        depth: What is known about it.
        reopen: Gives the image for its lower 8 bits; None if there is no way back to the file.

    Raises:
        ImageError: See ``Depth.of``.
    """
    found = _DEEP.fullmatch(rawmode)
    if found is None:
        return image
    name, order = found.groups()
    key = image.info.get("transparency")
    num_colours = 4 if name == "CMYK" else 3
    high = np.asarray(image)
    is_known = depth.is_full or (depth.is_unknown and bool(high[..., :num_colours].max() >= _QUARTER))
    if is_known and key is None:
        return image
    if reopen is None or name == "RGBa":
        what = "with colours multiplied by alpha " if name == "RGBa" else ""
        raise ImageError(
            f"colours of 16 bits {what}whose depth cannot be told: give the image as a file's path or bytes, "
            "without premultiplied alpha",
            "unsupported",
        )
    if name == "LA":
        high_low = np.asarray(reopen("LA;16B"))
        high, low = high_low[..., [0, 0, 0, 2]], high_low[..., [1, 1, 1, 3]]
    else:
        is_little = order == "L" or (order == "N" and _IS_LITTLE)
        low = np.asarray(_loaded(reopen(f"{name};16{'B' if is_little else 'L'}")))
    samples = high.astype(np.uint16) << 8 | low
    bits = depth.of(samples[..., :num_colours])
    # Alpha may fill its 16 bits.
    scaled = high if bits == depth.full else to_8_bits(np.minimum(samples, 2**bits - 1), bits)
    if key is None:
        return Image.frombytes(image.mode, image.size, scaled.tobytes())
    alpha = np.where((samples == np.array(key)).all(axis=-1, keepdims=True), 0, 255).astype(np.uint8)
    return Image.fromarray(np.concatenate([scaled, alpha], axis=-1))


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def to_rgb(
    image: Image.Image, depth: Depth, *, is_inverted: bool = False, is_signed: bool = False
) -> Image.Image:
    """Convert every mode that the allowed formats can hold.

    Args:
        image: A loaded image.
        depth: What is known about deep grey samples.
        is_inverted: Whether 0 is white in deep grey samples.
        is_signed: Whether deep grey samples have a sign.

    Raises:
        ImageError: Its values have no known scale, or its mode no RGB.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_grey_to_rgb(image, depth, is_inverted, is_signed)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "RGB":
        # Pillow would copy it, which takes a tenth of decoding.
        return image
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"colour mode {image.mode} cannot be converted to RGB", "unsupported") from error


def _on_white(image: Image.Image) -> Image.Image:
    """Transparent pixels on white; an alpha that is 0 everywhere is one that its writer left unused."""
    if image.mode == "La" and image.getchannel("a").getextrema() == (0, 0):
        return image.getchannel("L").convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (0, 0):
        return rgba.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _deep_grey_to_rgb(image: Image.Image, depth: Depth, is_inverted: bool, is_signed: bool) -> Image.Image:
    """Scale deep grey values linearly: Pillow's own conversion clips all above 255 to white.

    The scale never depends on the picture of a task, else two pictures of one camera would differ in
    brightness: integers span their depth, floats 0..1.
    """
    values = np.asarray(image)
    is_float = image.mode == "F"
    low, high, most = values.min(), values.max(), 1.0 if is_float else 65535.0
    if not (low >= 0 and high <= most):
        raise ImageError(
            f"gray values from {low} to {high}: expected 0 to {most:g} (mode {image.mode}); "
            "save the image with 8 or 16 bits",
            "unsupported",
        )
    if is_float:
        grey = ((1.0 - values if is_inverted else values) * 255.0 + 0.5).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if is_signed and depth.tagged is None and not isinstance(depth.stated, int):
        raise ImageError(
            f"signed gray values from {low} to {high} of unknown depth; set `bits` in the task's view to the "
            "camera's depth, or save the image with unsigned 16 bits",
            "unsupported",
        )
    bits = depth.of(values)
    grey = to_8_bits((2**bits - 1) - values if is_inverted else values, bits)
    key = image.info.get("transparency")
    # All of one colour is no transparency, as above.
    if key is not None and (is_shown := values != key).any():
        grey = np.where(is_shown, grey, np.uint8(255))
    return Image.fromarray(grey).convert("RGB")
