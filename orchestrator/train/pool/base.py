"""What every pool of workers has in common: a thread looks after it until the ledger is empty."""

import threading
from abc import ABC, abstractmethod

__all__ = ["Pool"]


class Pool(ABC):
    """Processes that work until the ledger has nothing left.

    Attributes:
        error: Why it ended before that, if it did.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether any worker may still be at work."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for all workers to return; False if they have not by then."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @abstractmethod
    def _look_after(self) -> None:
        """Start the workers, and see to them until all have returned."""

    def _run(self) -> None:
        try:
            self._look_after()
        # The thread's end of the line: the driver reads `error` and raises what fits.
        except BaseException as error:
            self.error = error
