"""Looks at something again and again from a thread of its own, and says what is wrong once, not each time."""

import logging
import threading
from collections.abc import Callable

__all__ = ["Watch"]

_log = logging.getLogger(__name__)


class Watch:
    """A daemon thread that outlives whatever a look raises.

    Args:
        name: Name of the watched object, for the thread and for messages.
        look: One look; returns what is wrong, None if nothing is.
        poll_s: Between two looks.
        meanwhile: What goes on while something is wrong; said with it.

    Attributes:
        problem: What was wrong at the last look.
    """

    def __init__(self, name: str, look: Callable[[], str | None], *, poll_s: float, meanwhile: str) -> None:
        self._name = name
        self._look = look
        self._poll_s = poll_s
        self._meanwhile = meanwhile
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ship-{name}", daemon=True)
        self.problem: str | None = f"the {name} was not looked for yet"

    @property
    def is_alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; a look under way is not waited for."""
        self._stopped.set()

    def step(self) -> None:
        """One look."""
        self._note(self._look())

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            _log.warning("%s; %s", problem, self._meanwhile)
        self.problem = problem

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.step()
            # A boundary: whatever a store's driver raises, later changes must still arrive.
            except Exception as error:
                self._note(f"following the {self._name} failed: {type(error).__name__}: {error}")
            self._stopped.wait(self._poll_s)
