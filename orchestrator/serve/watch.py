"""Looks at something again and again from a thread of its own, and says what is wrong once, not each time.

A look that hangs cannot be ended: it is told after a limit, and how long ago a look last succeeded can be
asked for at any time. All of it is measured on a monotonic clock.
"""

import logging
import threading
import time
from collections.abc import Callable

__all__ = ["LOOK_LIMIT_S", "Watch"]

# Above all time-outs and retries of one look together.
LOOK_LIMIT_S = 300.0
_log = logging.getLogger(__name__)


class Watch:
    """A daemon thread that outlives whatever a look raises.

    Args:
        name: Name of the watched object, for the thread and for messages.
        look: One look; returns what is wrong, None if nothing is.
        poll_s: Between two looks.
        meanwhile: What goes on while something is wrong; said with it.
        limit_s: A look that takes longer hangs.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], str | None],
        *,
        poll_s: float,
        meanwhile: str,
        limit_s: float = LOOK_LIMIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._look = look
        self._poll_s = poll_s
        self._meanwhile = meanwhile
        self._limit_s, self._clock = limit_s, clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ship-{name}", daemon=True)
        self._problem: str | None = f"the {name} was not looked for yet"
        self._said: str | None = None
        self._began_s: float | None = None
        self._succeeded_s = clock()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    @property
    def problem(self) -> str | None:
        """What was wrong at the last look, or that the one under way hangs; it is logged once."""
        if (hang := self._find_hang()) is not None:
            self._say(hang)
            return hang
        return self._problem

    @property
    def look_age_s(self) -> float:
        """Seconds since a look last succeeded; before the first one, since the watch was made."""
        return self._clock() - self._succeeded_s

    @property
    def num_broken(self) -> int:
        """Entries of what is looked at that cannot be read, and concern nothing else."""
        return 0

    def check(self, *, may_hang: bool = False) -> None:
        """Check that looks go on.

        Args:
            may_hang: Whether a look that hangs is only logged.

        Raises:
            RuntimeError: The thread is dead, or its look hangs.
        """
        if not self.is_alive:
            raise RuntimeError(f"the thread that follows the {self._name} is dead")
        if (hang := self._find_hang()) is not None:
            self._say(hang)
            if not may_hang:
                raise RuntimeError(hang)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; a look under way is not waited for."""
        self._stopped.set()

    def step(self) -> None:
        """One look."""
        self._began_s = self._clock()
        try:
            self._note(self._look())
        finally:
            self._began_s = None

    def _note(self, problem: str | None) -> None:
        self._problem = problem
        if problem is None:
            self._succeeded_s, self._said = self._clock(), None
        else:
            self._say(problem)

    def _find_hang(self) -> str | None:
        began_s = self._began_s
        if began_s is None or self._clock() - began_s < self._limit_s:
            return None
        return f"a look at the {self._name} has not ended for more than {self._limit_s:g} s"

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            _log.warning("%s; %s", problem, self._meanwhile)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.step()
            # A boundary: whatever a store's driver raises, later changes must still arrive.
            except Exception as error:
                self._note(f"following the {self._name} failed: {type(error).__name__}: {error}")
            self._stopped.wait(self._poll_s)
