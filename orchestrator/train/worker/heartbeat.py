"""A thread that renews a lease while its task gets ahead; it notes a lost lease, and a task that is stuck.

A task without progress for as long as its phase's limit is stuck. Seconds are counted in beats, not read from
a clock: a process that was paused, or a machine that slept, has beaten no more than its task has worked.
"""

import threading
from collections.abc import Callable
from typing import Self

from orchestrator.errors import ExecutionError
from orchestrator.train.ledger.grants import StallLimits
from orchestrator.train.worker.progress import Progress

__all__ = ["Heartbeat"]


class Heartbeat:
    """Calls ``beat`` every ``period_s`` seconds inside its block, for as long as there is progress.

    Args:
        beat: Renews the lease; False when it is lost.
        period_s: Seconds between beats.
        progress: Progress of the task.
        limits: Limits on the time without progress.
        on_end: Called, in the heartbeat's thread, when the lease is lost or the task is stuck.

    Attributes:
        stall: Where the task stands and for how long; None while it gets ahead.
    """

    def __init__(
        self,
        beat: Callable[[], bool],
        period_s: float,
        progress: Progress | None = None,
        limits: StallLimits | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._beat = beat
        self._period_s = period_s
        self._progress = progress or Progress()
        self._limits = limits or StallLimits()
        self._on_end = on_end
        self._mark, self._num_idle = self._progress.mark, 0
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)
        self.stall: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the lease was lost, or is about to be, for the task is stuck."""
        return self._lost.is_set()

    def __enter__(self) -> Self:
        """Start beating."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop beating, and wait until the thread has ended."""
        self._stop.set()
        self._thread.join()

    def step(self) -> bool:
        """One beat. Returns False if it was the last."""
        mark = self._progress.mark
        self._num_idle = self._num_idle + 1 if mark == self._mark else 0
        self._mark = mark
        idle_s = self._num_idle * self._period_s
        if idle_s >= self._limits.of(self._progress.phase):
            self.stall = f"no progress for {idle_s:g} s while {self._progress.describe()}"
        elif self._renew():
            return True
        self._lost.set()
        return False

    def _renew(self) -> bool:
        try:
            return self._beat()
        except ExecutionError:
            # The ledger is out of reach, so the lease will expire.
            return False

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            if not self.step():
                self._on_end()
                return
