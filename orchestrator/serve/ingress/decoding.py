"""Decoder of image files in a few threads of its own, which limits memory for all requests together.

A request that is cancelled before its turn is not decoded; a decode in progress keeps its place until it is
done, because a thread cannot be stopped. It knows no HTTP.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from orchestrator.serve.engine_api import Image
from orchestrator.serve.options import Limits
from ship.backbone import BackboneInfo
from ship.images import decode_image

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

    async def decode(self, content: bytes) -> Image:
        """Decode an image file into the engine's input.

        Raises:
            ImageError: The image is refused.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, content)

    def _decode(self, content: bytes) -> Image:
        decoded_3HW = self._decode_file(
            content,
            size=self._backbone.image_size,
            interpolation=self._backbone.interpolation,
            max_pixels=self._limits.max_pixels,
            formats=self._limits.formats,
        )
        image_3HW: Image = decoded_3HW.numpy()
        return image_3HW


def num_at_a_time(max_pixels: int) -> int:
    """Number of images of at most ``max_pixels`` to decode at a time; at least one."""
    return max(1, min(_MOST_THREADS, _BYTES // (_BYTES_A_PIXEL * max_pixels)))
