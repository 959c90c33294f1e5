"""Explanations of one replica: one at a time and few in line, so that they cannot starve predictions.

Knows nothing of Ray or HTTP.
"""

import asyncio
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from orchestrator.serve.engine_api import Explanation, Image, Refusal
from orchestrator.serve.residency.served import ServedVersion
from ship.runtime.explain import AttentionMaps, explain
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot

__all__ = ["Explainer"]

_log = logging.getLogger(__name__)


class Explainer:
    """Queue of explanations of one event loop; the work is done in a thread.

    Args:
        runtime: Runtime that holds the slots; predictions use it meanwhile.
        max_waiting: Explanations that may wait: each takes as long as two predictions of one row.
        measure: Function that computes the maps of attention.
    """

    def __init__(
        self,
        runtime: Runtime,
        max_waiting: int = 8,
        measure: Callable[[Runtime, Tensor, Slot], AttentionMaps] = explain,
    ) -> None:
        self._runtime, self._max_waiting, self._measure = runtime, max_waiting, measure
        self._turn = asyncio.Lock()
        self._num_waiting = 0

    async def explain(self, image: Image, served: ServedVersion, patience_s: float) -> Explanation | Refusal:
        """Explain one image; refuse if too many wait, or if its turn does not come in time."""
        if self._num_waiting >= self._max_waiting:
            return Refusal(reason="busy", detail=f"{self._num_waiting} explanations wait for their turn")
        self._num_waiting += 1
        try:
            async with asyncio.timeout(patience_s):
                await self._turn.acquire()
        except TimeoutError:
            return Refusal(reason="late", detail=f"no turn to be explained within {patience_s:g} s")
        finally:
            self._num_waiting -= 1
        work = asyncio.ensure_future(asyncio.to_thread(self._run, image, served))
        # A caller that gives up does not end the thread: the turn is over when it is.
        work.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(work)

    def _run(self, image: Image, served: ServedVersion) -> Explanation | Refusal:
        try:
            maps = self._measure(self._runtime, torch.from_numpy(image.copy()), served.slot)
        # A boundary: whatever goes wrong in the pass is told as a refusal, as it is of predictions.
        except Exception as error:
            _log.exception("the attention of task %s could not be measured", served.task)
            return Refusal(reason="failed", detail=f"the forward pass failed ({type(error).__name__})")
        return Explanation(
            task=served.task,
            version=served.version,
            digest=served.digest,
            prompted_TYX=maps.prompted_TYX.numpy(),
            bare_TYX=maps.bare_TYX.numpy(),
            entropy=maps.entropy,
            bare_entropy=maps.bare_entropy,
            distance=maps.distance,
        )
