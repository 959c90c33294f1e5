"""Hands on what was answered to the watch for drift, in the background and in bulk. Of one event loop.

A request adds one small value to a list, and waits for nothing. What cannot be handed on is dropped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from orchestrator.serve.drift.sighting import Drift, Sighting
from orchestrator.serve.engine_api import Answer
from ship.evaluation.drift import Observation

__all__ = ["Sightings"]

_log = logging.getLogger(__name__)
_EVERY_S = 2.0
_MOST = 10_000
_TIMEOUT_S, _ASK_TIMEOUT_S = 5.0, 1.0

Described = tuple[tuple[Drift, ...], int, int]


class Sightings:
    """What one ingress has answered since it was handed on last.

    Args:
        send: Hands it on; None if nothing watches.
        ask: Asks the watch for drift what it has found; None if there is none.
        every_s: Between two times.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Sighting]], Awaitable[Any]] | None = None,
        ask: Callable[[], Awaitable[Described]] | None = None,
        every_s: float = _EVERY_S,
    ) -> None:
        self._send, self._ask, self._every_s = send, ask, every_s
        self._seen: list[Sighting] = []
        self._sending: asyncio.Task[None] | None = None

    def note(self, answer: Answer) -> None:
        """Note an answer; the first one after a pause begins the wait for the next time."""
        if self._send is None or len(self._seen) >= _MOST:
            return
        label, confidence = answer.probabilities[0]
        observed = Observation(
            label=label,
            is_unsure=answer.because is not None,
            confidence=confidence,
            distance=answer.distance,
        )
        self._seen.append(
            Sighting(task=answer.task, digest=answer.digest, rule=answer.rule, observed=observed)
        )
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._hand_on(self._send))

    async def describe(self) -> Described | None:
        """What the watch has found; None if there is none, or it does not answer."""
        if self._ask is None:
            return None
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                return await self._ask()
        # A boundary: metrics matter most while something is wrong.
        except Exception as error:
            _log.debug("the watch for drift does not answer: %s: %s", type(error).__name__, error)
            return None

    async def _hand_on(self, send: Callable[[Sequence[Sighting]], Awaitable[Any]]) -> None:
        await asyncio.sleep(self._every_s)
        seen, self._seen, self._sending = self._seen, [], None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await send(seen)
        # A boundary: a poller that is away is no reason to keep more and more.
        except Exception as error:
            _log.debug("%d answers are not watched: %s: %s", len(seen), type(error).__name__, error)
