"""The prompts that are held in memory, by their last use. Its caller holds a lock."""

import weakref
from collections import OrderedDict
from collections.abc import Callable

from orchestrator.serve.served import Key, ServedTask
from ship.slots import Slot

__all__ = ["PromptMemory"]


class PromptMemory:
    """Holds prompts, and lets go of them. A slot is freed when the last request that has it is done too."""

    def __init__(self) -> None:
        # The one that was used longest ago comes first.
        self._held: OrderedDict[Key, ServedTask] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    @property
    def num_bytes(self) -> int:
        """Of device memory."""
        return sum(served.slot.num_bytes for served in self._held.values())

    def use(self, key: Key) -> ServedTask | None:
        """A prompt, which is now the one used last."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def peek(self, key: Key) -> ServedTask | None:
        """A prompt, without it counting as use."""
        return self._held.get(key)

    def add(self, key: Key, served: ServedTask) -> None:
        """Hold a prompt."""
        self._held[key] = served
        self._held.move_to_end(key)

    def drop(self, key: Key) -> None:
        """Let go of a prompt."""
        self._held.pop(key, None)

    def keep(self, is_wanted: Callable[[Key], bool]) -> None:
        """Let go of all others."""
        for key in [key for key in self._held if not is_wanted(key)]:
            del self._held[key]

    def evict(self, may_go: Callable[[Key], bool]) -> "weakref.ref[Slot] | None":
        """Let go of the one used longest ago that may go.

        Returns:
            Its slot, for as long as a request has it; None if nothing may go.
        """
        for key in self._held:
            if may_go(key):
                return weakref.ref(self._held.pop(key).slot)
        return None
