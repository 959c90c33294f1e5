"""Comparison of champions with their shadows, in the background; some answers are left out under load.

It knows no HTTP and no Ray. Counts are those of one process, and start again when either version changes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.serve.engine_api import (
    Answer,
    Ask,
    Engine,
    EngineBusyError,
    EngineUnavailableError,
    Refusal,
)
from orchestrator.serve.ingress.asking import Asker, Picture

__all__ = ["Shadows"]

_log = logging.getLogger(__name__)
MAX_UNDER_WAY = 4
# Time limit in the engine's queue: a comparison that would wait longer is left out.
PATIENCE_S = 2.0
# Pause after the engine was busy.
REST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class _Tally:
    """Comparison of two versions of a task.

    Attributes:
        version: Version of the champion.
        shadow_version: Version of the shadow.
        num_compared: Images that both answered.
        num_agreed: Images with the same label from both.
        sum_differences: Sum of absolute differences in the probability of the champion's label.
    """

    version: int
    shadow_version: int
    num_compared: int = 0
    num_agreed: int = 0
    sum_differences: float = 0.0

    def count(self, answer: Answer, shadow: Answer) -> "_Tally":
        """Add an image; a label that the shadow does not have counts as probability 0."""
        label, probability = answer.probabilities[0]
        difference = abs(probability - dict(shadow.probabilities).get(label, 0.0))
        return replace(
            self,
            num_compared=self.num_compared + 1,
            num_agreed=self.num_agreed + (shadow.probabilities[0][0] == label),
            sum_differences=self.sum_differences + difference,
        )


class Shadows:
    """Comparisons of one process, in one event loop.

    Args:
        engine: Engine that answers.
        on_compared: Called with the champion's and the shadow's answer for each image.
        max_under_way: Most comparisons at a time; others are left out.
        clock: Monotonic clock, in seconds.
        backbones: See ``Asker``.
    """

    def __init__(
        self,
        engine: Engine,
        on_compared: Callable[[Answer, Answer], None] = lambda answer, shadow: None,
        max_under_way: int = MAX_UNDER_WAY,
        clock: Callable[[], float] = time.monotonic,
        backbones: Sequence[str] = (),
    ) -> None:
        self._asker = Asker(engine, backbones)
        self._on_compared = on_compared
        self._max_under_way = max_under_way
        self._clock = clock
        self._rests_until_s = 0.0
        # A loop keeps weak references to its tasks only.
        self._under_way: set[asyncio.Task[None]] = set()
        self._tallies: dict[str, _Tally] = {}

    def compare(self, answer: Answer, picture: Picture) -> None:
        """Compare an answer with that of the shadow, if there is one, in the background; returns at once."""
        if answer.shadow_version is None or len(self._under_way) >= self._max_under_way:
            return
        if self._clock() < self._rests_until_s:
            return
        comparison = asyncio.get_running_loop().create_task(
            self._compare(answer, answer.shadow_version, picture)
        )
        self._under_way.add(comparison)
        comparison.add_done_callback(self._under_way.discard)

    def describe(self, task: str, shadow_version: int | None) -> dict[str, Any] | None:
        """Comparison of a task's shadow with its champion; None without a shadow."""
        if shadow_version is None:
            return None
        tally = self._tallies.get(task)
        if tally is not None and tally.shadow_version != shadow_version:
            tally = None
        return {
            "version": shadow_version,
            "champion": tally and tally.version,
            "compared": tally.num_compared if tally else 0,
            "agreed": tally.num_agreed if tally else 0,
            "mean_difference": tally.sum_differences / tally.num_compared if tally else None,
        }

    async def _compare(self, answer: Answer, shadow_version: int, picture: Picture) -> None:
        ask = Ask(task=answer.task, version=shadow_version, is_background=True)
        try:
            [reply] = await self._asker.predict([picture], [ask], PATIENCE_S)
        except (EngineBusyError, EngineUnavailableError):
            self._rests_until_s = self._clock() + REST_S
            return
        # A boundary: an error here must not fail a request that was answered.
        except Exception:
            _log.exception("version %d of task %s could not be compared", shadow_version, answer.task)
            return
        if isinstance(reply, Answer):
            self._tallies[answer.task] = self._tally(answer, shadow_version).count(answer, reply)
            self._on_compared(answer, reply)
        elif isinstance(reply, Refusal) and reply.reason in ("busy", "late"):
            self._rests_until_s = self._clock() + REST_S

    def _tally(self, answer: Answer, shadow_version: int) -> _Tally:
        found = self._tallies.get(answer.task)
        if found is None or (found.version, found.shadow_version) != (answer.version, shadow_version):
            return _Tally(version=answer.version, shadow_version=shadow_version)
        return found
