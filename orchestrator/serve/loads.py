"""Loads under way and loads that failed: one a prompt, however many ask. Its caller holds a lock.

Who waits for a prompt is never behind those that are loaded in advance: each kind has threads of its own, and
a load that somebody begins to wait for changes over, unless it is at work already.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from orchestrator.serve.served import Key, PromptRef, ServedTask

__all__ = ["Failure", "Load", "Loads", "is_over"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a prompt is not in memory.

    Attributes:
        text: The cause.
        retry_at_s: When it may be tried again; None for never: an artifact's bytes do not change.
    """

    text: str
    retry_at_s: float | None


@dataclass(kw_only=True, eq=False)
class Load:
    """One prompt that is being loaded.

    Attributes:
        ref: Which one.
        may_evict: Whether others may go to make room for it.
        is_urgent: Whether somebody waits for it.
        future: What came of it; None if there was no room and nothing was to go.
        found_no_room: It asked for room while nothing was to go.
        ended: Set when it is over, however it ended.
    """

    ref: PromptRef
    may_evict: bool
    is_urgent: bool
    found_no_room: bool = False
    future: Future[ServedTask | Failure | None] = field(default_factory=Future)
    ended: threading.Event = field(default_factory=threading.Event)


class Loads:
    """Starts loads and remembers them.

    Args:
        run: Loads; called in a thread, and calls ``end``.
        num_loaders: Threads of each kind.
    """

    def __init__(self, run: Callable[[Load], ServedTask | Failure | None], num_loaders: int) -> None:
        self._run = run
        self._urgent = ThreadPoolExecutor(num_loaders, "ship-load")
        self._in_advance = ThreadPoolExecutor(num_loaders, "ship-load-in-advance")
        self._running: dict[Key, Load] = {}
        self._failures: dict[Key, Failure] = {}

    def begin(self, ref: PromptRef, *, is_urgent: bool, may_evict: bool) -> Load:
        """Load a prompt, or join the load that is under way."""
        load = self._running.get(ref.key)
        if load is None:
            load = Load(ref=ref, may_evict=may_evict, is_urgent=is_urgent)
            self._running[ref.key] = load
            self._submit(load)
            return load
        load.may_evict |= may_evict
        if is_urgent and not load.is_urgent:
            load.is_urgent = True
            if load.future.cancel():
                self._submit(load)
        return load

    def end(self, load: Load, failure: Failure | None = None) -> None:
        """Note how a load ended."""
        del self._running[load.ref.key]
        self._failures.pop(load.ref.key, None)
        if failure is not None:
            self._failures[load.ref.key] = failure

    def failure(self, key: Key) -> Failure | None:
        """How the last load of a prompt failed, if it did."""
        return self._failures.get(key)

    def due(self, now_s: float) -> list[Key]:
        """Prompts that failed and may be tried again."""
        return [key for key, failure in self._failures.items() if is_over(failure, now_s)]

    def forget(self, is_wanted: Callable[[Key], bool]) -> None:
        """Forget failures of all other prompts."""
        self._failures = {key: failure for key, failure in self._failures.items() if is_wanted(key)}

    def _submit(self, load: Load) -> None:
        threads = self._urgent if load.is_urgent else self._in_advance
        load.future = threads.submit(self._run, load)


def is_over(failure: Failure, now_s: float) -> bool:
    """Whether what failed may be tried again."""
    return failure.retry_at_s is not None and now_s >= failure.retry_at_s
