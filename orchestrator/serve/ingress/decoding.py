"""Decoder of image files in processes with a budget of CPU time, which accounts share.

Small pictures and large ones go different ways: a large one holds a process for seconds, and takes memory,
which limits their number. It knows no HTTP.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from orchestrator.serve.engine_api import Image
from orchestrator.serve.ingress.decode_pool import ProcessPool
from orchestrator.serve.ingress.fair_turns import FairTurns
from orchestrator.serve.options import Limits
from ship.backbone_info import BackboneInfo
from ship.errors import ConfigError, ImageError
from ship.images.decoding import read_pixels, read_size
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["Decoder", "num_large_at_a_time"]

# Memory for all large images that are being decoded: four of the largest (50 megapixels).
_BYTES = 3 << 30
# Peak for an image with transparency: Pillow has four bytes a pixel, and the image, its RGBA form, the white
# background and the blend of both exist at once.
_BYTES_A_PIXEL = 16
# A picture of more pixels goes the way of the large ones.
_SMALL_PIXELS = 4_000_000
# A process takes 30 MB, and the ingress that feeds them all is one thread.
_MOST_CORES = 8
_ALONE = ""


class Decoder:
    """Decoder of image files into the engine's input, for one ingress.

    Args:
        backbone: Backbone of the engine, if a call names no other; determines how images are resized.
        limits: Accepted formats, most pixels of an image, CPU time and processes.
        decode: Function that decodes a file in place of the processes, see ``ship.images.decode_pixels``; for
            tests.
    """

    def __init__(
        self, backbone: BackboneInfo, limits: Limits, decode: Callable[..., Image] | None = None
    ) -> None:
        self._backbone = backbone
        self._limits = limits
        self._decode_file = decode
        num = limits.decode_processes or min(os.cpu_count() or 1, _MOST_CORES) + 1
        self.pool = ProcessPool(limits.max_pixels, limits.timeout_s)
        self._small = FairTurns(num)
        self._large = FairTurns(min(num, num_large_at_a_time(limits.max_pixels)))

    def start(self) -> None:
        """Start the processes for small pictures, so that the first requests need not wait for them."""
        for _ in range(self._small.num_places):
            self.pool.start()

    @property
    def num_busy(self) -> int:
        """Pictures in progress, also those that no request waits for any more."""
        return self._small.num_running + self._large.num_running

    async def decode(
        self,
        content: bytes,
        view: View = DEFAULT_VIEW,
        size: tuple[int, int] | None = None,
        account: str = _ALONE,
        backbone: BackboneInfo | None = None,
    ) -> Image:
        """Decode an image file into the engine's input, or into another size.

        Args:
            content: The file's bytes.
            view: See ``ship.images.decode_image``.
            size: Height and width; None for the engine's input.
            account: Account that the processes are shared by.
            backbone: Backbone of the engine; None for the decoder's own.

        Raises:
            ImageError: The image is refused.
        """
        backbone = backbone or self._backbone
        how = {
            "size": size or backbone.image_size,
            "interpolation": backbone.interpolation,
            "formats": self._limits.formats,
        }
        if self._decode_file is not None:
            asked = {**how, "view": view, "max_pixels": self._limits.max_pixels}
            decode = partial(self._decode_file, content, **asked)
            return np.asarray(await self._small.run(account, partial(asyncio.to_thread, decode)))
        facts, payload = await self._ask(account, {**how, "view": view.to_dict()}, content)
        return np.frombuffer(payload, np.uint8).reshape(facts["shape"])

    async def read_size(self, content: bytes, account: str = _ALONE) -> tuple[int, int]:
        """Width and height of an image file as it is shown.

        Raises:
            ImageError: The image is refused.
        """
        if self._decode_file is not None:
            return await self._small.run(account, partial(asyncio.to_thread, read_size, content))
        facts, _ = await self._ask(account, {"view": None}, content)
        width, height = facts["size"]
        return width, height

    async def fit(
        self,
        pixels_3HW: Image,
        view: View = DEFAULT_VIEW,
        account: str = _ALONE,
        backbone: BackboneInfo | None = None,
    ) -> Image:
        """Fit pixels into the engine's input, as those of a file are.

        Raises:
            ImageError: The image is refused.
        """
        backbone = backbone or self._backbone
        if view.is_whole and pixels_3HW.shape[1:] == backbone.image_size:
            return pixels_3HW
        fit = partial(asyncio.to_thread, _fit, pixels_3HW, view, backbone)
        return await self._small.run(account, fit)

    async def _ask(self, account: str, how: dict[str, Any], content: bytes) -> tuple[dict[str, Any], Any]:
        """Ask a process for small pictures, and one for large ones if the first says so."""
        limits = self._limits
        budget = {"cpu_s": limits.decode_cpu_s, "cpu_s_per_megapixel": limits.decode_cpu_s_per_megapixel}
        for turns, largest in ((self._small, _SMALL_PIXELS), (self._large, None)):
            asked = {**how, **budget, "largest": largest}
            facts, payload = await turns.run(account, partial(self.pool.ask, asked, content))
            if "large" not in facts:
                break
        if "problems" in facts:
            if facts["kind"] is None:
                raise ConfigError(facts["problems"])
            raise ImageError(facts["problems"], facts["kind"])
        return facts, payload


def _fit(pixels_3HW: Image, view: View, backbone: BackboneInfo) -> Image:
    return read_pixels(
        pixels_3HW.transpose(1, 2, 0),
        size=backbone.image_size,
        interpolation=backbone.interpolation,
        view=view,
    )


def num_large_at_a_time(max_pixels: int) -> int:
    """Number of large images of at most ``max_pixels`` to decode at a time; at least one."""
    return max(1, _BYTES // (_BYTES_A_PIXEL * max_pixels))
