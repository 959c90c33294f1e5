"""Loads ahead of requests, for as long as there is room. Its caller holds a lock."""

import weakref
from collections.abc import Iterable

from orchestrator.serve.residency.champions import Champions
from orchestrator.serve.residency.loads import Loads, Precedence
from orchestrator.serve.residency.prompt_memory import PromptMemory
from orchestrator.serve.residency.served import PromptRef
from ship.runtime.slots import Slot

__all__ = ["InAdvance"]


class InAdvance:
    """Begins loads that no request waits for, and remembers which ones it left out.

    Args:
        champions: The wanted versions.
        memory: The prompts in memory.
        loads: Loads under way, and failures.
        backbone: See ``Finder``.

    Attributes:
        is_full: Whether such loads find no room.
    """

    def __init__(
        self, champions: Champions, memory: PromptMemory, loads: Loads, backbone: str | None = None
    ) -> None:
        self._champions = champions
        self._backbone = backbone
        self._memory = memory
        self._loads = loads
        self._left_out: set[str] = set()
        self._held: list[weakref.ref[Slot]] = []
        self.is_full = False

    def leave_out(self, task: str) -> None:
        """Something of a task is not there, and is looked after when there is room again."""
        self._left_out.add(task)

    def forget(self, task: str) -> None:
        """A task is not wanted any more."""
        self._left_out.discard(task)

    def await_room(self, slot: "weakref.ref[Slot]") -> None:
        """A slot was let go. While a request has it, what asks for its room finds none."""
        self._held.append(slot)

    def take_due(self, tasks: Iterable[str]) -> list[str]:
        """These tasks and those that were left out, if there may be room for them now; by name."""
        wanted = set(tasks)
        held = [slot for slot in self._held if slot() is not None]
        self.is_full &= len(held) == len(self._held)
        self._held = held
        if not self.is_full:
            wanted |= self._left_out
            self._left_out.clear()
        return sorted(wanted)

    def begin_all(self, task: str) -> None:
        """Load what is wanted of a task, and its rules, if they are not there."""
        self.begin_champion(task)
        self.begin_others(task)

    def begin_champion(self, task: str) -> None:
        """Load the champion that is wanted of a task, if it is not there."""
        if self._champions.entry(task) is None:
            return
        current = self._champions.current(task)
        is_swap = current is not None and current.key in self._memory
        self.begin(
            self._champions.wanted(task),
            Precedence.SWAP if is_swap else Precedence.IN_ADVANCE,
            may_evict=is_swap or self._champions.is_pinned(task),
        )

    def begin_others(self, task: str) -> None:
        """Load canary and shadow of a task, if they are not there, and new rules of all that is there."""
        entry, idle = self._champions.entry(task), self._champions.idle(task)
        tried: tuple[int | None, ...] = ()
        others = {} if idle is None else idle.versions
        if entry is not None:
            canary = None if entry.canary is None else entry.canary.version
            tried, others = (canary, entry.shadow), entry.others
        for version, digest in others.items():
            if version in tried or (task, digest) in self._memory:
                self.begin(self._champions.named(task, version), Precedence.IN_ADVANCE, may_evict=False)

    def begin(self, ref: PromptRef, precedence: Precedence, *, may_evict: bool) -> None:
        """Load a prompt or its rule, if it is not there, did not just fail, and may find room."""
        if self._memory.holds(ref) or self._loads.hindrance(ref.key) is not None:
            return
        if None not in (self._backbone, ref.backbone) and ref.backbone != self._backbone:
            return
        if self.is_full and not may_evict and ref.key not in self._memory:
            self.leave_out(ref.task)
        else:
            self._loads.begin(ref, precedence, may_evict=may_evict)
