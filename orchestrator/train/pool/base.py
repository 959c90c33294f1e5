"""Base class of worker pools: a thread that starts and watches the workers until all have returned."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

__all__ = ["Pool"]


def _hold_nothing() -> None:
    """Ray itself ends the actors of a job whose driver has ended."""


class Pool(ABC):
    """Worker processes of a run.

    Attributes:
        error: Exception that ended the pool early, if any.
        release: Frees what the cluster still holds for the pool when its driver has ended without ending it;
            importable on every node.
    """

    def __init__(self, release: Callable[[], None] = _hold_nothing) -> None:
        self.error: BaseException | None = None
        self.release = release
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether any worker may still run."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the pool without waiting for it."""
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait for all workers to return, but no longer than that."""
        self._thread.join(timeout_s)

    @abstractmethod
    def _look_after(self) -> None:
        """Start the workers, and watch them until all have returned."""

    def _run(self) -> None:
        try:
            self._look_after()
        # The driver reads `error` and raises its own.
        except BaseException as error:
            self.error = error
