"""Turns of accounts at a few places: an account that has much to do leaves a place to the others."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["FairTurns"]

_Value = TypeVar("_Value")


class FairTurns:
    """Places for jobs in which accounts take turns, and none has all. Of one event loop.

    First in, first out within an account. A job that is cancelled before its turn is not begun; one in
    progress goes on, and keeps its place until it is done.

    Args:
        num_places: Jobs at a time; more than one, so that one is left to the other accounts.
    """

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self._most_of_one = max(1, num_places - 1)
        # The account whose turn is next comes first; no line is empty.
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._running: Counter[str] = Counter()

    @property
    def num_running(self) -> int:
        """Jobs in progress."""
        return self._running.total()

    async def run(self, account: str, work: Callable[[], Awaitable[_Value]]) -> _Value:
        """What ``work`` returns, which is begun when it is this account's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(account, deque()).append(turn)
        self._give_turns()
        try:
            await turn
        except asyncio.CancelledError:
            self._withdraw(account, turn)
            raise
        job = asyncio.ensure_future(work())
        job.add_done_callback(lambda _: self._leave(account))
        return await asyncio.shield(job)

    def _give_turns(self) -> None:
        while self.num_running < self.num_places:
            account = next((name for name in self._lines if self._running[name] < self._most_of_one), None)
            if account is None:
                return
            line = self._lines.pop(account)
            turn = line.popleft()
            if line:
                self._lines[account] = line
            # Its caller is gone, and has not run yet to withdraw it.
            if not turn.cancelled():
                turn.set_result(None)
                self._running[account] += 1

    def _withdraw(self, account: str, turn: "asyncio.Future[None]") -> None:
        """The caller of a job that has not begun is gone."""
        if not turn.cancelled():
            # Its turn has come at the same moment.
            self._leave(account)
            return
        line = self._lines.get(account)
        # A place that became free at the same moment has passed it over.
        if line is None or turn not in line:
            return
        line.remove(turn)
        if not line:
            del self._lines[account]

    def _leave(self, account: str) -> None:
        self._running[account] -= 1
        if not self._running[account]:
            del self._running[account]
        self._give_turns()
