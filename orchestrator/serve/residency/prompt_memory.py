"""The prompts that are held in memory, by their last use. Its caller holds a lock."""

import heapq
import itertools
import time
import weakref
from collections.abc import Callable, Iterable

from orchestrator.serve.residency.served import Key, PromptRef, ServedVersion
from ship.runtime.slots import Slot

__all__ = ["PromptMemory", "wait_until_released"]

_RELEASE_LOOK_S = 0.002


class PromptMemory:
    """Holds prompts, and lets go of them. A slot is freed when the last request that has it is done too."""

    def __init__(self) -> None:
        # Of each kind, the one that was used longest ago comes first. Spare ones are wanted least.
        self._held: dict[bool, dict[Key, ServedVersion]] = {False: {}, True: {}}
        self._is_spare: dict[Key, bool] = {}
        self._last_use: dict[Key, int] = {}
        self._uses = itertools.count()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._is_spare)

    def __contains__(self, key: Key) -> bool:
        return key in self._is_spare

    def holds(self, ref: PromptRef) -> bool:
        """Whether a prompt is held that decides by the rule that is named."""
        served = self.peek(ref.key)
        return served is not None and served.rule_digest == ref.rule

    @property
    def num_bytes(self) -> int:
        """Device memory that they take."""
        return self._num_bytes

    def use(self, key: Key) -> ServedVersion | None:
        """A prompt, which is now the one used last."""
        served = self.peek(key)
        if served is not None:
            self._put(key, served, self._is_spare[key])
        return served

    def peek(self, key: Key) -> ServedVersion | None:
        """A prompt, without it counting as use."""
        is_spare = self._is_spare.get(key)
        return None if is_spare is None else self._held[is_spare][key]

    def add(self, key: Key, served: ServedVersion) -> None:
        """Hold a prompt."""
        self.drop(key)
        self._put(key, served, is_spare=False)
        self._num_bytes += served.slot.num_bytes

    def set_spare(self, key: Key, is_spare: bool) -> None:
        """Say whether a prompt is wanted less than others, if it is held; a change counts as use."""
        served = self.peek(key)
        if served is not None and self._is_spare[key] != is_spare:
            self._put(key, served, is_spare)

    def drop(self, key: Key) -> bool:
        """Let go of a prompt; whether it was held."""
        served = self.peek(key)
        if served is None:
            return False
        del self._held[self._is_spare.pop(key)][key], self._last_use[key]
        self._num_bytes -= served.slot.num_bytes
        return True

    def find_room(self, num_bytes: int, may_go: Callable[[Key], bool], *, spare_first: bool) -> Key | None:
        """The next that may go to make room; None if all that may go together are not as large.

        Args:
            num_bytes: Bytes to make room for.
            may_go: Whether a prompt may go; spare ones always may.
            spare_first: Take those first; else go by last use alone.
        """
        others, spare = filter(may_go, self._held[False]), iter(self._held[True])
        if spare_first:
            return self._first_of_enough(itertools.chain(spare, others), num_bytes)
        by_use = heapq.merge(others, spare, key=self._last_use.__getitem__)
        return self._first_of_enough(by_use, num_bytes)

    def release(self, key: Key) -> "weakref.ref[Slot]":
        """Let go of a prompt; returns its slot, for as long as a request has it."""
        slot = weakref.ref(self._held[self._is_spare[key]][key].slot)
        self.drop(key)
        return slot

    def _first_of_enough(self, keys: Iterable[Key], num_bytes: int) -> Key | None:
        first: Key | None = None
        for key in keys:
            first = first or key
            num_bytes -= self._held[self._is_spare[key]][key].slot.num_bytes
            if num_bytes <= 0:
                return first
        return None

    def _put(self, key: Key, served: ServedVersion, is_spare: bool) -> None:
        """Hold a prompt, as the one used last."""
        if key in self._is_spare:
            del self._held[self._is_spare[key]][key]
        self._held[is_spare][key] = served
        self._is_spare[key] = is_spare
        self._last_use[key] = next(self._uses)


def wait_until_released(slot: "weakref.ref[Slot]", timeout_s: float) -> bool:
    """Wait until the requests that were answered from a slot are done with it, but not for ever."""
    deadline_s = time.monotonic() + timeout_s
    while slot() is not None and time.monotonic() < deadline_s:
        time.sleep(_RELEASE_LOOK_S)
    return slot() is None
