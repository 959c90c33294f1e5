"""Prompts in memory, and the swap of new ones for old ones.

A served task is one immutable object: weights, labels, rule, version and digest together. A request takes it
once and keeps it, so a swap can never mix the labels of one version with the weights of another, and the old
object lives until its last request is done. A new rule makes a new object with the same weights; until it is
read, or if it cannot be, the last one decides. A prompt that is not in memory is not served without a rule.

All champions are in memory while there is room. When there is not, a prompt that is asked for takes the
place of the ones used longest ago; one that is loaded in advance takes only that of spare ones, which are no
champion, canary or shadow. What a champion answers for stays until its successor is ready, and for good if
that fails.

It knows neither the store nor the backbone: a loader does.
"""

import asyncio
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

from orchestrator.serve.engine_api import ALL_TASKS, Ask, Refusal, ResidencyStats, ServingState, TaskPage
from orchestrator.serve.residency.champions import Champions
from orchestrator.serve.residency.finder import Finder
from orchestrator.serve.residency.loads import (
    Load,
    LoadFailure,
    LoadPrompt,
    Loads,
    Pending,
    ReadRule,
    describe_failure,
    read_no_rule,
    refuse,
    refuse_idle,
    wait_for,
)
from orchestrator.serve.residency.prefetch import InAdvance
from orchestrator.serve.residency.prompt_memory import PromptMemory, wait_until_released
from orchestrator.serve.residency.served import Key, ServedVersion
from orchestrator.serve.residency.state import describe_task
from orchestrator.serve.residency.task_names import TaskNames
from orchestrator.store.documents.catalog import Catalog, CatalogEntry, IdleTask
from orchestrator.tracing import span
from ship.errors import SlotsFullError

__all__ = ["Residency"]

_LISTED = 20
_log = logging.getLogger(__name__)


class Residency:
    """The prompts in memory, kept as the catalog wants them. Threads may share it.

    Args:
        load: Makes a served task of a version; calls what it is given to make room for so many bytes.
            Whatever it raises is kept as that version's problem.
        num_loaders: Loads at a time that a request waits for, as many of promoted versions, and as many in
            advance.
        read_rule: Reads the decision rule that a version names; raises as ``load`` does.
        pinned: Patterns of tasks whose champions stay in memory.
        load_wait_s: Longest time that a request waits for its prompt to be loaded.
        retry_s: Until a failed load is tried again.
        release_wait_s: Longest wait for requests that hold an evicted slot: a forward pass takes less, so one
            that is still held then is stuck, and another one goes.
        backbone: See ``Finder``.
        clock: Seconds that only go up.

    Attributes:
        name: Name of this residency, another one after a restart.
    """

    def __init__(
        self,
        load: LoadPrompt,
        num_loaders: int = 4,
        *,
        read_rule: ReadRule = read_no_rule,
        pinned: Iterable[str] = (),
        load_wait_s: float = 10.0,
        retry_s: float = 10.0,
        release_wait_s: float = 2.0,
        backbone: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._read_rule = load, read_rule
        # Its counts begin at zero, so a residency that takes its place must not go by its name.
        self.name = uuid.uuid4().hex[:8]
        self._load_wait_s, self._retry_s = load_wait_s, retry_s
        self._release_wait_s = release_wait_s
        self._clock = clock
        self._applying = threading.Lock()
        # Of all that follows; never held while something is loaded.
        self._lock = threading.Lock()
        self._champions = Champions(pinned)
        # Of the names alone, so that a long list holds up no request.
        self._listing = threading.Lock()
        self._names = TaskNames()
        self._memory = PromptMemory()
        self._loads = Loads(self._run, num_loaders, clock)
        self._in_advance = InAdvance(self._champions, self._memory, self._loads, backbone)
        self._finder = Finder(self._champions, self._memory, self._loads, self._in_advance, backbone)
        # Tasks with a champion in memory; those whose wanted version could not be loaded.
        self._served: set[str] = set()
        self._failed: set[str] = set()
        self._confirmed_at_s: float | None = None
        self._num_broken = 0
        self._num_loads = self._num_failures = self._num_evictions = self._num_swaps = 0

    async def find(self, ask: Ask, patience_s: float = math.inf) -> ServedVersion | Refusal:
        """The version that answers, or why none does. Waits only for a load of the task that is asked.

        Args:
            ask: Without a version the champion answers, or a canary for its share of keys. One in the
                background gets what is in memory.
            patience_s: Longest time to wait, if that is less than ``load_wait_s``.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + min(patience_s, self._load_wait_s)
        while True:
            with self._lock:
                found = self._finder.find(ask)
            if not isinstance(found, Pending):
                return found
            with span("wait for prompt"):
                ended = await wait_for(found.load.future, deadline_s - loop.time())
            if not ended:
                refusal = refuse(found.load.ref, "it is still being loaded; try again shortly")
                return replace(refusal, is_loading=True)
            outcome = found.load.future.result()
            if isinstance(outcome, ServedVersion):
                return outcome.named(found.version, found.shadow_version)
            # It failed, which the next look knows, or was in advance and found no room: now it is urgent.

    def state(self, task: str) -> ServingState | None:
        """State of a task; None if it is not in the catalog."""
        with self._lock:
            wanted = self._champions.entry(task)
            if wanted is None:
                return None
            home = self._finder.elsewhere(self._champions.wanted(task))
            if home is not None:
                return replace(describe_task(task, wanted, None, lambda key: None), backbone=home)
            return describe_task(task, wanted, self._champion_in_memory(task), self._loads.failure)

    def idle_reason(self, task: str) -> Refusal | None:
        """Why no version of a registered task serves; None of any other task."""
        with self._lock:
            idle = self._champions.idle(task)
        return None if idle is None else refuse_idle(task, idle)

    def states(self, page: TaskPage = ALL_TASKS) -> list[ServingState]:
        """States of the tasks of a page, by name."""
        with self._listing:
            names = self._names.behind(page.patterns, page.after)
        # A name that leaves the catalog meanwhile has no state, and takes no place of the page.
        found = (state for name in names if (state := self.state(name)) is not None)
        return list(islice(found, page.limit))

    @property
    def num_served(self) -> int:
        """Tasks with a champion in memory."""
        return len(self._served)

    @property
    def num_problems(self) -> int:
        """Tasks whose wanted version could not be loaded."""
        return len(self._failed)

    @property
    def num_lost(self) -> int:
        """Tasks that left the catalog and have not come back."""
        return self._champions.num_lost

    @property
    def num_broken(self) -> int:
        """Entries of the catalog that cannot be read."""
        return self._num_broken

    @property
    def num_loading(self) -> int:
        """Prompts that are being loaded."""
        return len(self._loads)

    @property
    def catalog_age_s(self) -> float | None:
        """Since the catalog was last seen to be current; None before the first."""
        confirmed_at_s = self._confirmed_at_s
        return None if confirmed_at_s is None else self._clock() - confirmed_at_s

    def has_canary(self, task: str) -> bool:
        """Whether the key of a request decides which of two versions answers."""
        entry = self._champions.entry(task)
        return entry is not None and entry.canary is not None

    def stats(self) -> ResidencyStats:
        """Counts since the start, and how things stand."""
        with self._lock:
            return ResidencyStats(
                replica=self.name,
                num_loads=self._num_loads,
                num_load_failures=self._num_failures,
                num_evictions=self._num_evictions,
                num_swaps=self._num_swaps,
                num_catalog_tasks=len(self._champions),
                num_resident=len(self._memory),
                resident_bytes=self._memory.num_bytes,
                catalog_age_s=self.catalog_age_s,
                num_lost=self.num_lost,
                num_broken=self._num_broken,
            )

    def apply(self, catalog: Catalog, *, age_s: float = 0.0) -> None:
        """Bring memory in line with the catalog. One call at a time; returns once the loads have begun.

        What is served goes on until the moment its successor is ready, and stays if that fails. Tasks that
        left the catalog are dropped.

        Args:
            catalog: The catalog that is wanted from now on.
            age_s: Since it was last seen to be current.
        """
        with self._applying:
            changed = self._champions.changed(catalog)
            self._champions.note_backbones(catalog)
            gone = [task for task in changed if self._champions.is_lost_by(catalog, task)]
            if set(self._champions) != catalog.entries.keys():
                with self._listing:
                    self._names = TaskNames(catalog.entries)
            for task in changed:
                # Let go in between: requests go on.
                with self._lock:
                    self._take_over(task, catalog.find(task))
            with self._lock:
                self._confirmed_at_s = self._clock() - age_s
                self._num_broken = len(catalog.broken)
            if gone:
                _log.warning("%d tasks left the catalog: %s", len(gone), ", ".join(gone[:_LISTED]))
            self._load_in_advance(changed)

    def refresh(self) -> None:
        """The catalog is still as it was applied: what failed or found no room is tried again in its time."""
        with self._lock:
            self._confirmed_at_s = self._clock()
            due = {task for task, _ in self._loads.due()}
        self._load_in_advance(due)

    def wait_loaded(self, timeout_s: float) -> bool:
        """Wait until every load that is under way now is over; False if that takes too long."""
        with self._lock:
            # Not the loads: they would keep what they loaded alive.
            ends = self._loads.ends()
        deadline_s = time.monotonic() + min(timeout_s, threading.TIMEOUT_MAX)
        return all(ended.wait(max(0.0, deadline_s - time.monotonic())) for ended in ends)

    def _take_over(self, task: str, found: CatalogEntry | IdleTask | None) -> None:
        before = self._champions.entry(task) or self._champions.idle(task)
        unwanted = self._champions.take(task, found)
        if isinstance(found, CatalogEntry):
            self._crown(task)
        else:
            self._in_advance.forget(task)
        rules = [set(standing.rules.items()) if standing else set() for standing in (before, found)]
        for digest, _ in rules[0] ^ rules[1]:
            # What failed with the rule before need not fail with this one.
            self._loads.forget((task, digest))
        for key in unwanted:
            self._drop(key)
        self._note(task)

    def _load_in_advance(self, tasks: Iterable[str]) -> None:
        """Start loads of what may be asked of tasks and is not there, champions before all others."""
        with self._lock:
            due = self._in_advance.take_due(tasks)
        for begin in (self._in_advance.begin_champion, self._in_advance.begin_others):
            for task in due:
                # Let go in between: requests go on.
                with self._lock:
                    begin(task)

    def _run(self, load: Load) -> ServedVersion | LoadFailure | None:
        """Load, in a thread; returns what came of it, see ``Load.future``."""
        outcome = self._attempt(load)
        with self._lock:
            # It may have left the catalog meanwhile: then only the requests that wait for it get it.
            is_named, has_rule = self._champions.is_named(load.ref.key), self._champions.wants_rule(load.ref)
            if isinstance(outcome, ServedVersion) and load.is_of_rule and load.ref.key not in self._memory:
                # The prompt gave way meanwhile.
                outcome = None
            is_lasting = is_named and has_rule
            self._loads.end(load, outcome if isinstance(outcome, LoadFailure) and is_lasting else None)
            if isinstance(outcome, ServedVersion):
                self._num_loads += not load.is_of_rule
                # A rule that is not wanted any more takes no other's place.
                if is_named and (has_rule or load.ref.key not in self._memory):
                    self._memory.add(load.ref.key, outcome)
                    self._crown(load.ref.task)
            elif isinstance(outcome, LoadFailure):
                self._num_failures += 1
            elif is_named:
                # A request for it makes room.
                self._in_advance.is_full |= load.found_no_room
                self._in_advance.leave_out(load.ref.task)
            if not has_rule:
                # Another rule is wanted meanwhile.
                self._in_advance.begin_all(load.ref.task)
            self._note(load.ref.task)
        if isinstance(outcome, LoadFailure):
            ref, cause = load.ref, outcome.cause
            _log.warning("task %s, version %d cannot be served: %s", ref.task, ref.version, cause)
        load.ended.set()
        return outcome

    def _attempt(self, load: Load) -> ServedVersion | LoadFailure | None:
        """The same; on return an error is gone, and with its frames the slot of a refused prompt."""
        ref = load.ref
        with self._lock:
            held = self._memory.peek(ref.key)
        load.is_of_rule = held is not None
        if held is None and self._in_advance.is_full and not load.may_evict:
            return None
        try:
            rule = None if ref.rule is None else self._read_rule(ref)
            served = held or self._load(ref, lambda num_bytes: self._make_room(load, num_bytes))
            return served.ruled(ref.rule, rule)
        # A boundary: whatever is wrong with one task's prompt, the others are served, and so is the old one.
        except Exception as error:
            has_no_room = isinstance(error, SlotsFullError) and load.found_no_room
            return None if has_no_room else describe_failure(error, self._clock() + self._retry_s)

    def _make_room(self, load: Load, num_bytes: int) -> bool:
        """Let go of the prompt that is next to go; False if all that may go would not be enough."""
        with self._lock:
            key = self._memory.find_room(
                num_bytes,
                lambda key: load.may_evict and self._champions.may_go(key, load.ref),
                spare_first=not self._champions.is_spare(load.ref.key),
            )
            if key is None:
                load.found_no_room = not load.may_evict
                return False
            if not self._champions.is_spare(key):
                self._in_advance.is_full = True
                self._in_advance.leave_out(key[0])
            slot = self._memory.release(key)
            self._num_evictions += 1
            self._note(key[0])
        if not wait_until_released(slot, self._release_wait_s):
            with self._lock:
                self._in_advance.await_room(slot)
        return True

    def _crown(self, task: str) -> None:
        """Let the wanted champion answer, if it is in memory; the one before stays if it can be asked for."""
        if self._champions.entry(task) is None or self._champions.wanted(task).key not in self._memory:
            return
        if (before := self._champions.crown(task)) is not None:
            self._num_swaps += 1
            # It has become spare at the least.
            self._in_advance.is_full = False
            if not self._champions.is_named(before.key):
                self._drop(before.key)

    def _drop(self, key: Key) -> None:
        self._loads.forget(key)
        if key in self._memory:
            self._in_advance.await_room(self._memory.release(key))
            self._in_advance.is_full = False

    def _note(self, task: str) -> None:
        """Something of a task has changed: which of its prompts are spare, and whether it counts."""
        for key in self._champions.prompts(task):
            self._memory.set_spare(key, self._champions.is_spare(key))
        entry, current = self._champions.entry(task), self._champions.current(task)
        is_here = entry is not None and self._finder.elsewhere(self._champions.wanted(task)) is None
        is_served = is_here and current is not None and current.key in self._memory
        has_failed = is_here and entry is not None and self._loads.failure((task, entry.digest)) is not None
        for tasks, belongs in ((self._served, is_served), (self._failed, has_failed)):
            (tasks.add if belongs else tasks.discard)(task)

    def _champion_in_memory(self, task: str) -> ServedVersion | None:
        current = self._champions.current(task)
        served = None if current is None else self._memory.peek(current.key)
        return None if current is None or served is None else served.named(current.version)
