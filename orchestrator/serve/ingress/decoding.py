"""Decoder of image files in a few threads of its own, which limits memory for all requests together.

A request that is cancelled before its turn is not decoded; a decode in progress keeps its place until it is
done, because a thread cannot be stopped. It knows no HTTP.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from orchestrator.serve.engine_api import Image
from orchestrator.serve.options import Limits
from ship.backbone import BackboneInfo
from ship.images import decode_image, read_image
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["Decoder", "num_at_a_time"]

# Memory for all images that are being decoded: four of the largest (50 megapixels).
_BYTES = 3 << 30
# Peak for an image with transparency: Pillow has four bytes a pixel, and the image, its RGBA form, the white
# background and the blend of both exist at once.
_BYTES_A_PIXEL = 16
# Small images would be allowed by the thousand; more threads than this decode nothing faster.
_MOST_THREADS = 32


class Decoder:
    """Decoder of image files into the engine's input, for one process.

    Args:
        backbone: Backbone that the engine runs; determines how images are resized.
        limits: Accepted formats and most pixels of an image.
        decode: Function that decodes a file, see ``ship.images.decode_image``.
    """

    def __init__(
        self, backbone: BackboneInfo, limits: Limits, decode: Callable[..., Tensor] = decode_image
    ) -> None:
        self._backbone = backbone
        self._limits = limits
        self._decode_file = decode
        self._threads = ThreadPoolExecutor(num_at_a_time(limits.max_pixels), thread_name_prefix="decode")

    async def decode(
        self, content: bytes, view: View = DEFAULT_VIEW, size: tuple[int, int] | None = None
    ) -> Image:
        """Decode an image file into the engine's input, or into another size.

        Raises:
            ImageError: The image is refused.
        """
        return await self._run(self._decode, content, view, size or self._backbone.image_size)

    async def fit(self, pixels_3HW: Image, view: View = DEFAULT_VIEW) -> Image:
        """Fit pixels into the engine's input, as those of a file are.

        Raises:
            ImageError: The image is refused.
        """
        if view.is_default and pixels_3HW.shape[1:] == self._backbone.image_size:
            return pixels_3HW
        return await self._run(self._fit, pixels_3HW, view)

    async def _run(self, work: Callable[..., Tensor], *args: Any) -> Image:
        image = await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        found: Image = image.numpy()
        return found

    def _decode(self, content: bytes, view: View, size: tuple[int, int]) -> Tensor:
        return self._decode_file(
            content,
            size=size,
            interpolation=self._backbone.interpolation,
            max_pixels=self._limits.max_pixels,
            formats=self._limits.formats,
            view=view,
        )

    def _fit(self, pixels_3HW: Image, view: View) -> Tensor:
        return read_image(
            pixels_3HW.transpose(1, 2, 0),
            size=self._backbone.image_size,
            interpolation=self._backbone.interpolation,
            view=view,
        )


def num_at_a_time(max_pixels: int) -> int:
    """Number of images of at most ``max_pixels`` to decode at a time; at least one."""
    return max(1, min(_MOST_THREADS, _BYTES // (_BYTES_A_PIXEL * max_pixels)))
