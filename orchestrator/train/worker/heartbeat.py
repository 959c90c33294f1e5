"""A thread that prolongs a lease while its task is busy, and notes when the lease is lost."""

import threading
from collections.abc import Callable
from typing import Self

from orchestrator.errors import ExecutionError

__all__ = ["Heartbeat"]


class Heartbeat:
    """Calls ``beat`` every ``period_s`` seconds inside its block, until ``beat`` returns False.

    Args:
        beat: Prolongs the lease; False when it is lost.
        period_s: Seconds between beats.
    """

    def __init__(self, beat: Callable[[], bool], period_s: float) -> None:
        self._beat = beat
        self._period_s = period_s
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether the lease was lost."""
        return self._lost.is_set()

    def __enter__(self) -> Self:
        """Start beating."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop beating, and wait until the thread has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                is_alive = self._beat()
            except ExecutionError:
                # The ledger is out of reach, so the lease will expire.
                is_alive = False
            if not is_alive:
                self._lost.set()
                return
