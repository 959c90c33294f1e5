"""Time limit of a request, and the time that each of its stages took."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.serve.ingress.problems import Problem

__all__ = ["RequestClock"]


class RequestClock:
    """Clock of one request, which starts when it is created.

    Args:
        timeout_s: Time limit of the request, reading and decoding included.

    Attributes:
        stages_s: Duration of each stage in seconds, in the order in which they ended.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._started_s = self._marked_s = time.perf_counter()
        self.stages_s: dict[str, float] = {}

    @property
    def remaining_s(self) -> float:
        """Seconds until the time limit; not below zero."""
        return max(0.0, self._started_s + self._timeout_s - time.perf_counter())

    def end_stage(self, stage: str) -> None:
        """End a stage, which began when the last one ended."""
        now_s = time.perf_counter()
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + now_s - self._marked_s
        self._marked_s = now_s

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Cancel the block at the time limit.

        Raises:
            Problem: 504, the block was cancelled.
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
        """Problem of a request that reached its time limit."""
        spent = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in self.stages_s.items())
        return Problem(
            "late",
            f"no answer within {self._timeout_s:g} s (done by then: {spent or 'nothing'}); allow more time "
            "in header Ship-Timeout, or try again",
        )
