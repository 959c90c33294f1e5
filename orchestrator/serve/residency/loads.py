"""Loads under way and loads that failed: one a prompt, however many ask. Its caller holds a lock."""

import threading
from collections.abc import Callable

from orchestrator.serve.residency.load_queue import Failure, Load, LoadQueue, Precedence
from orchestrator.serve.residency.served import Key, PromptRef, ServedTask

__all__ = ["Loads"]


class Loads:
    """Starts loads and remembers them.

    Args:
        run: Loads; called in a thread, and calls ``end``.
        num_loaders: Loads of each kind at a time.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        run: Callable[[Load], ServedTask | Failure | None],
        num_loaders: int,
        clock: Callable[[], float],
    ) -> None:
        self._queue = LoadQueue(run, num_loaders)
        self._clock = clock
        self._running: dict[Key, Load] = {}
        self._failures: dict[Key, Failure] = {}

    def __len__(self) -> int:
        """Loads under way."""
        return len(self._running)

    def begin(self, ref: PromptRef, precedence: Precedence, *, may_evict: bool) -> Load:
        """Load a prompt, or join the load that is under way, which comes no later for it."""
        load = self._running.get(ref.key)
        if load is None:
            load = Load(ref=ref, precedence=precedence, may_evict=may_evict)
            self._running[ref.key] = load
            self._queue.put(load)
            return load
        load.may_evict |= may_evict
        if precedence < load.precedence:
            self._queue.raise_to(load, precedence)
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

    def hindrance(self, key: Key) -> Failure | None:
        """The same, unless it may be tried again."""
        failure = self._failures.get(key)
        return None if failure is None or self._may_retry(failure) else failure

    def due(self) -> list[Key]:
        """Prompts that failed and may be tried again."""
        return [key for key, failure in self._failures.items() if self._may_retry(failure)]

    def ends(self) -> list[threading.Event]:
        """Of all loads under way: set when they are over."""
        return [load.ended for load in self._running.values()]

    def forget(self, key: Key) -> None:
        """Forget that a prompt failed."""
        self._failures.pop(key, None)

    def _may_retry(self, failure: Failure) -> bool:
        return failure.retry_at_s is not None and self._clock() >= failure.retry_at_s
