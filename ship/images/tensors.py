"""Images as tensors, see ``decoding``."""

from collections.abc import Collection

import torch
from torch import Tensor

from ship.images.decoding import ALLOWED_FORMATS, MAX_PIXELS, ImageLike, decode_pixels, read_pixels
from ship.settings.view import View

__all__ = ["decode_image", "read_image"]


def decode_image(
    content: bytes,
    *,
    size: tuple[int, int],
    interpolation: str = "bicubic",
    max_pixels: int = MAX_PIXELS,
    formats: Collection[str] = ALLOWED_FORMATS,
    view: View | None = None,
) -> Tensor:
    """Decode an image file to a tensor; see ``decode_pixels``."""
    return torch.from_numpy(
        decode_pixels(
            content,
            size=size,
            interpolation=interpolation,
            max_pixels=max_pixels,
            formats=formats,
            view=view,
        )
    )


def read_image(
    image: ImageLike,
    *,
    size: tuple[int, int],
    interpolation: str = "bicubic",
    max_pixels: int = MAX_PIXELS,
    view: View | None = None,
) -> Tensor:
    """Make a tensor of an image in any of the forms that a notebook has; see ``read_pixels``."""
    return torch.from_numpy(
        read_pixels(image, size=size, interpolation=interpolation, max_pixels=max_pixels, view=view)
    )
