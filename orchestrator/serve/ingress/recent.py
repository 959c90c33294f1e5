"""Value of an asynchronous call that is kept for a moment, so that asking often costs no more than once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from orchestrator.errors import ServeError

__all__ = ["Recent"]

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """The last value, or the last error of an engine; callers at the same time share one call.

    Args:
        ask: The call.
        keep_s: Seconds that its outcome is kept.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[_Value]],
        keep_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._keep_s, self._clock = ask, keep_s, clock
        self._outcome: _Value | ServeError | None = None
        self._until_s = float("-inf")
        self._call: asyncio.Task[None] | None = None

    async def get(self) -> _Value:
        """The kept value, or a new one.

        Raises:
            ServeError: The call did, now or a moment ago.
        """
        while self._clock() >= self._until_s:
            if self._call is None:
                # Of no caller's context: Ray would end the call with the request that happened to be first.
                self._call = asyncio.get_running_loop().create_task(self._renew(), context=Context())
                self._call.add_done_callback(self._forget)
            # One caller that goes away does not end the call of the others.
            await asyncio.shield(self._call)
            if self._keep_s <= 0.0:
                break
        if isinstance(self._outcome, ServeError):
            raise self._outcome.with_traceback(None)
        assert self._outcome is not None, "a call has ended"
        return self._outcome

    async def _renew(self) -> None:
        try:
            self._outcome = await self._ask()
        except ServeError as error:
            self._outcome = error
        self._until_s = self._clock() + self._keep_s

    def _forget(self, call: asyncio.Task[None]) -> None:
        self._call = None
