"""How long a request may take, and where its time went. Reading and decoding count as much as the engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.serve.ingress.problems import Problem

__all__ = ["RequestClock"]


class RequestClock:
    """Runs from its making.

    Args:
        timeout_s: That the request may take.

    Attributes:
        stages_s: Seconds that each stage took, in the order in which they ended.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._started_s = self._marked_s = time.perf_counter()
        self.stages_s: dict[str, float] = {}

    @property
    def remaining_s(self) -> float:
        """Until its time is up; not below zero."""
        return max(0.0, self._started_s + self._timeout_s - time.perf_counter())

    def end_stage(self, stage: str) -> None:
        """What was done since the last stage ended was this one."""
        now_s = time.perf_counter()
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + now_s - self._marked_s
        self._marked_s = now_s

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Break off what is inside once time is up.

        Raises:
            Problem: 504, it was.
        """
        timeout = asyncio.timeout(self.remaining_s)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise self.late() from error

    def late(self) -> Problem:
        """That time was up."""
        spent = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in self.stages_s.items())
        return Problem(
            "late",
            f"no answer within {self._timeout_s:g} s (done by then: {spent or 'nothing'}); allow more time "
            "in header Ship-Timeout, or try again",
        )
