"""Progress of one task in its worker: the phase, the operations under way, and a count of those that ended.

Knows neither clock nor lease: ``heartbeat`` compares two counts.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.train.ledger.grants import Phase
from ship.redaction import redact_url

__all__ = ["Progress"]

_WORDS: dict[Phase, str] = {
    "data": "reading its data",
    "step": "being tuned",
    "store": "exchanging objects with the store",
}


class Progress:
    """What a task is doing, for a lease that only progress renews; thread-safe."""

    def __init__(self) -> None:
        self._phase: Phase = "store"
        self._count: Callable[[], int] = lambda: 0
        self._ended = itertools.count(1)
        self._num_ended = 0
        self._lock = threading.Lock()
        # By a number, the oldest first.
        self._under_way: dict[int, str] = {}
        self._next_number = 0

    @property
    def phase(self) -> Phase:
        """What the task does now, which sets its limit."""
        return self._phase

    @property
    def mark(self) -> tuple[Phase, int, int]:
        """A value that differs from the one before if the task got ahead."""
        return self._phase, self._num_ended, self._count()

    def enter(self, phase: Phase, count: Callable[[], int] = lambda: 0) -> None:
        """Begin a phase.

        Args:
            phase: The phase.
            count: A number that grows with progress which ``doing`` does not see, such as forward passes.
        """
        self._phase, self._count = phase, count
        self._num_ended = next(self._ended)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """An operation, such as reading a file; its end is progress."""
        with self._lock:
            number = self._next_number = self._next_number + 1
            self._under_way[number] = what
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[number]
            self._num_ended = next(self._ended)

    def describe(self) -> str:
        """Phase and oldest operation in words, for people."""
        with self._lock:
            oldest = next(iter(self._under_way.values()), None)
        words = _WORDS[self._phase]
        return words if oldest is None else f"{words} ({redact_url(oldest)})"
