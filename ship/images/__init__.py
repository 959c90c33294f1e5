"""Decoding of images to tensors: one way for tuning, serving and notebooks, so that all agree.

``decoding`` makes arrays and loads without torch, for processes that do nothing but decode; ``tensors`` makes
tensors of them. ``work`` bounds what a file can make a decoder do, before it does it.
"""

from typing import TYPE_CHECKING

from ship.lazy import lazy_names

if TYPE_CHECKING:
    from ship.images.decoding import ALLOWED_FORMATS, INTERPOLATIONS, MAX_PIXELS, ImageLike, read_size
    from ship.images.tensors import decode_image, read_image

__all__ = [
    "ALLOWED_FORMATS",
    "INTERPOLATIONS",
    "MAX_PIXELS",
    "ImageLike",
    "decode_image",
    "read_image",
    "read_size",
]

__getattr__ = lazy_names(
    __name__,
    {**dict.fromkeys(__all__, "decoding"), **dict.fromkeys(("decode_image", "read_image"), "tensors")},
)
