"""Turns of accounts at a few threads: an account that has much to do leaves a thread to the others."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["FairTurns"]

_Value = TypeVar("_Value")
_Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class FairTurns:
    """Executor of blocking work in which accounts take turns, and none has all threads.

    First in, first out within an account. A job that is cancelled before its turn is not run; one in progress
    keeps its place until it is done.

    Args:
        num_threads: Jobs at a time; more than one, so that one is left to the other accounts.
        name: Prefix of the threads' names.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self.num_threads = num_threads
        self._most_of_one = max(1, num_threads - 1)
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        # The account whose turn is next comes first; no line is empty.
        self._lines: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._running: Counter[str] = Counter()

    @property
    def num_running(self) -> int:
        """Jobs in progress."""
        return self._running.total()

    def submit(self, account: str, work: Callable[..., _Value], *args: Any) -> Future[_Value]:
        """Run ``work(*args)`` when it is this account's turn."""
        future: Future[_Value] = Future()
        with self._lock:
            self._lines.setdefault(account, deque()).append((future, work, args))
        self._threads.submit(self._take_turn)
        return future

    def _take_turn(self) -> None:
        """Run the next job, if there is one of an account that may run another."""
        taken = self._take()
        if taken is None:
            return
        account, (future, work, args) = taken
        outcome: Any = None
        error: BaseException | None = None
        is_wanted = future.set_running_or_notify_cancel()
        try:
            if is_wanted:
                outcome = work(*args)
        # A boundary: whatever a job raises is its caller's.
        except BaseException as raised:
            error = raised
        # The place is free before the caller hears of the outcome.
        self._leave(account)
        if error is not None:
            future.set_exception(error)
        elif is_wanted:
            future.set_result(outcome)

    def _take(self) -> tuple[str, _Job] | None:
        with self._lock:
            account = next((name for name in self._lines if self._running[name] < self._most_of_one), None)
            if account is None:
                return None
            line = self._lines.pop(account)
            job = line.popleft()
            if line:
                self._lines[account] = line
            self._running[account] += 1
            return account, job

    def _leave(self, account: str) -> None:
        with self._lock:
            self._running[account] -= 1
            if not self._running[account]:
                del self._running[account]
            is_waited_for = bool(self._lines)
        if is_waited_for:
            # In place of a turn that found nothing to run, since its account had all that it may have.
            self._threads.submit(self._take_turn)
