"""A clock that counts only the time that its process was awake."""

from collections.abc import Callable

__all__ = ["AwakeClock"]

# Far above the time from one call of the ledger to the next: the driver polls it twice a second.
_LONGEST_STEP_S = 5.0


class AwakeClock:
    """Seconds from 0, in steps of at most a few seconds from one reading to the next.

    A ledger that was paused, or starved of CPU, finds all heartbeats of that time waiting: no lease has run
    out before they are read. A ledger that is called more seldom has a slower clock: its leases last longer.

    Args:
        clock: Monotonic seconds.
        longest_step_s: Limit on the time between two readings that counts.
    """

    def __init__(self, clock: Callable[[], float], longest_step_s: float = _LONGEST_STEP_S) -> None:
        self._clock, self._longest_step_s = clock, longest_step_s
        self._read_s = clock()
        self._now_s = 0.0

    def __call__(self) -> float:
        """The time now."""
        read_s = self._clock()
        self._now_s += min(read_s - self._read_s, self._longest_step_s)
        self._read_s = read_s
        return self._now_s
