"""Which prompts are in memory, and how new ones take the place of old ones.

A served task is one immutable object: weights, labels, version and digest together. A request takes it once
and keeps it, so a swap can never mix the labels of one version with the weights of another, and the old
object lives until its last request is done.

All champions are in memory while there is room. When there is not, a prompt that somebody asks for takes the
place of the ones used longest ago. What a champion answers for stays until its successor is ready, and for
good if that fails.

It knows neither the store nor the backbone: a loader does.
"""

import asyncio
import logging
import math
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from orchestrator.serve.canary import choose_version
from orchestrator.serve.champions import Champions
from orchestrator.serve.engine_api import Ask, CanaryState, Refusal, ResidencyStats, TaskState
from orchestrator.serve.loads import Failure, Load, Loads, is_over
from orchestrator.serve.prompt_memory import PromptMemory
from orchestrator.serve.served import Key, PromptRef, ServedTask
from orchestrator.store.catalog import Catalog, CatalogEntry
from ship.errors import ArtifactError, SlotsFullError
from ship.slots import Slot

__all__ = ["LoadPrompt", "PromptRef", "Residency", "ServedTask"]

_log = logging.getLogger(__name__)
# A forward pass takes less; what still holds a slot then is stuck, and another one goes.
_RELEASE_WAIT_S = 2.0
_RELEASE_LOOK_S = 0.002

LoadPrompt = Callable[[PromptRef, Callable[[], bool]], ServedTask]


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """A load to wait for, and what its prompt is to be called."""

    load: Load
    version: int
    shadow_version: int | None


class Residency:
    """The prompts in memory, kept as the catalog wants them. Threads may share it.

    Args:
        load: Makes a served task of a version; calls what it is given to make room. Whatever it raises is
            kept as that version's problem.
        num_loaders: Loads at a time that somebody waits for, and as many in advance.
        pinned: Patterns of tasks whose champions stay in memory.
        load_wait_s: How long a request waits at most for its prompt to be loaded.
        retry_s: Until a failed load is tried again.
        clock: Seconds that only go up.
        draw: From 0 to 1; decides for requests without a key while a canary runs.
    """

    def __init__(
        self,
        load: LoadPrompt,
        num_loaders: int = 4,
        *,
        pinned: Iterable[str] = (),
        load_wait_s: float = 10.0,
        retry_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._load = load
        # Its counts begin at zero, so a residency that takes its place must not go by its name.
        self._name = uuid.uuid4().hex[:8]
        self._load_wait_s, self._retry_s = load_wait_s, retry_s
        self._clock, self._draw = clock, draw
        self._applying = threading.Lock()
        # Of all that follows; never held while something is loaded.
        self._lock = threading.Lock()
        self._champions = Champions(pinned)
        self._memory = PromptMemory()
        self._loads = Loads(self._run, num_loaders)
        self._is_full = False
        self._confirmed_at_s: float | None = None
        self._num_loads = self._num_failures = self._num_evictions = self._num_swaps = 0

    async def find(self, ask: Ask, patience_s: float = math.inf) -> ServedTask | Refusal:
        """The version that answers, or why none does. Waits only for a load of the task that is asked.

        Args:
            ask: Without a version the champion answers, or a canary for its share of keys.
            patience_s: How long to wait at most, if that is less than ``load_wait_s``.
        """
        loop, draw = asyncio.get_running_loop(), self._draw()
        deadline_s = loop.time() + min(patience_s, self._load_wait_s)
        while True:
            with self._lock:
                found = self._look(ask, draw)
            if not isinstance(found, _Pending):
                return found
            ended = await _wait(found.load.future, deadline_s - loop.time())
            if not ended:
                return _not_loaded(found.load.ref, "it is still being loaded; try again shortly")
            outcome = found.load.future.result()
            if isinstance(outcome, ServedTask):
                return outcome.named(found.version, found.shadow_version)
            # It failed, which the next look knows, or was in advance and found no room: now it is urgent.

    def get(self, task: str) -> ServedTask | None:
        """The champion that is in memory at this moment."""
        with self._lock:
            return self._champion_in_memory(task)

    def state(self, task: str) -> TaskState | None:
        """How a task of the catalog stands; None if it is not in the catalog."""
        with self._lock:
            return self._state(task)

    def states(self) -> list[TaskState]:
        """How all tasks of the catalog stand, by name."""
        with self._lock:
            tasks = sorted(self._champions)
        found = (self.state(task) for task in tasks)
        return [state for state in found if state is not None]

    @property
    def num_served(self) -> int:
        """Tasks with a champion in memory."""
        with self._lock:
            return sum(self._champion_in_memory(task) is not None for task in self._champions)

    @property
    def num_problems(self) -> int:
        """Tasks whose wanted version could not be loaded."""
        with self._lock:
            wanted = (self._champions.wanted(task).key for task in self._champions)
            return sum(self._loads.failure(key) is not None for key in wanted)

    def stats(self) -> ResidencyStats:
        """Counts since the start, and how things stand."""
        with self._lock:
            confirmed_at_s = self._confirmed_at_s
            return ResidencyStats(
                replica=self._name,
                num_loads=self._num_loads,
                num_load_failures=self._num_failures,
                num_evictions=self._num_evictions,
                num_swaps=self._num_swaps,
                num_catalog_tasks=len(self._champions),
                num_resident=len(self._memory),
                resident_bytes=self._memory.num_bytes,
                catalog_age_s=None if confirmed_at_s is None else self._clock() - confirmed_at_s,
            )

    def apply(self, catalog: Catalog, *, wait: bool = True) -> None:
        """Bring memory in line with the catalog. One call at a time.

        What is served goes on until the moment its successor is ready, and stays if that fails. Tasks that
        left the catalog are dropped.

        Args:
            catalog: What is wanted from now on.
            wait: Return only when every load is over.
        """
        with self._applying:
            with self._lock:
                self._take_over(catalog)
            # Not the loads: they would keep what they loaded alive.
            ends: list[threading.Event] = []
            for task in sorted(catalog.entries):
                # Let go in between: requests go on.
                with self._lock:
                    ends += [load.ended for load in self._load_in_advance(task)]
        if wait:
            for ended in ends:
                ended.wait()

    def refresh(self) -> None:
        """The catalog is still as it was applied: what failed is tried again, if it is time."""
        with self._lock:
            self._confirmed_at_s = self._clock()
            for task in {task for task, _ in self._loads.due(self._clock())}:
                self._load_in_advance(task)

    def _take_over(self, catalog: Catalog) -> None:
        self._confirmed_at_s = self._clock()
        num_held = len(self._memory)
        self._champions.take(catalog.entries)
        for task in catalog.entries:
            self._crown(task)
        self._memory.keep(self._champions.is_named)
        self._is_full &= len(self._memory) == num_held
        self._loads.forget(self._champions.is_named)

    def _load_in_advance(self, task: str) -> list[Load]:
        """Start loads of what may be asked of a task and is not there."""
        entry, current = self._champions.entry(task), self._champions.current(task)
        if entry is None:
            return []
        # What nobody asked for yet must not push out what is in use.
        is_swap = current is not None and current.key in self._memory
        wanted = [(entry.version, is_swap or self._champions.is_pinned(task))]
        beside = (None if entry.canary is None else entry.canary.version, entry.shadow)
        wanted += [(version, False) for version in beside if version is not None]
        started = []
        for version, may_evict in wanted:
            ref = PromptRef(task=task, version=version, digest=entry.versions[version])
            is_due = ref.key not in self._memory and self._failure(ref.key) is None
            if is_due and (may_evict or not self._is_full):
                started.append(self._loads.begin(ref, is_urgent=False, may_evict=may_evict))
        return started

    def _look(self, ask: Ask, draw: float) -> ServedTask | Refusal | _Pending:
        entry = self._champions.entry(ask.task)
        if entry is None:
            return Refusal(reason="unknown_task", detail=f"task {ask.task!r} is not in the catalog")
        if ask.version is not None:
            return self._look_for_version(ask.task, entry, ask.version)
        version = choose_version(ask.task, entry, ask.key, draw)
        if version != entry.version:
            canary = self._obtain(PromptRef(task=ask.task, version=version, digest=entry.others[version]))
            if isinstance(canary, ServedTask):
                return canary
            # A canary that is not there yet, or will not be, costs nobody an answer.
        return self._look_for_champion(ask.task, entry)

    def _look_for_version(
        self, task: str, entry: CatalogEntry, version: int
    ) -> ServedTask | Refusal | _Pending:
        versions, current = entry.versions, self._champions.current(task)
        if current is not None:
            # It answers, so it can be asked for, whatever its aliases are now.
            versions.setdefault(current.version, current.digest)
        digest = versions.get(version)
        if digest is None:
            had = ", ".join(map(str, sorted(versions)))
            return Refusal(
                reason="other_version",
                detail=f"version {version} of task {task!r} cannot be had; these can: {had}",
            )
        return self._obtain(PromptRef(task=task, version=version, digest=digest))

    def _look_for_champion(self, task: str, entry: CatalogEntry) -> ServedTask | Refusal | _Pending:
        wanted = self._champions.wanted(task)
        current = self._champions.current(task) or wanted
        if (served := self._memory.use(wanted.key)) is not None:
            return served.named(wanted.version, entry.shadow)
        if (served := self._memory.use(current.key)) is not None:
            if self._failure(wanted.key) is None:
                self._loads.begin(wanted, is_urgent=False, may_evict=True)
            return served.named(current.version, entry.shadow)
        found = self._obtain(wanted, entry.shadow)
        if isinstance(found, Refusal) and current.key != wanted.key:
            return self._obtain(current, entry.shadow)
        return found

    def _obtain(self, ref: PromptRef, shadow_version: int | None = None) -> ServedTask | Refusal | _Pending:
        """What is in memory, or the load that will bring it there, or why none will."""
        if (served := self._memory.use(ref.key)) is not None:
            return served.named(ref.version, shadow_version)
        if (failure := self._failure(ref.key)) is not None:
            return _not_loaded(ref, failure.text)
        load = self._loads.begin(ref, is_urgent=True, may_evict=True)
        return _Pending(load=load, version=ref.version, shadow_version=shadow_version)

    def _run(self, load: Load) -> ServedTask | Failure | None:
        """Load, in a thread. Returns what came of it: an exception that is kept would keep slots alive."""
        try:
            if self._is_full and not load.may_evict:
                return self._end(load, None)
            served = self._load(load.ref, lambda: self._make_room(load))
        # A boundary: whatever is wrong with one task's prompt, the others are served, and so is the old one.
        except Exception as error:
            return self._end(load, error)
        with self._lock:
            self._loads.end(load)
            self._num_loads += 1
            # It may have left the catalog meanwhile: then only those who wait for it get it.
            if self._champions.is_named(load.ref.key):
                self._memory.add(load.ref.key, served)
                self._crown(load.ref.task)
        load.ended.set()
        return served

    def _end(self, load: Load, error: Exception | None) -> Failure | None:
        with self._lock:
            failure = None
            if error is None or (isinstance(error, SlotsFullError) and load.found_no_room):
                # Whoever asks for it makes room.
                self._is_full = True
            else:
                failure = self._as_failure(error)
                self._num_failures += 1
            self._loads.end(load, failure)
        load.ended.set()
        if failure is not None:
            _log.warning(
                "task %s, version %d cannot be served: %s", load.ref.task, load.ref.version, failure.text
            )
        return failure

    def _as_failure(self, error: Exception) -> Failure:
        is_final = isinstance(error, ArtifactError)
        return Failure(
            text=str(error) or type(error).__name__,
            retry_at_s=None if is_final else self._clock() + self._retry_s,
        )

    def _make_room(self, load: Load) -> bool:
        """Let go of the prompt that was used longest ago; False if there is none, or none is to go."""
        with self._lock:
            if not load.may_evict:
                load.found_no_room = True
                return False
            slot = self._memory.evict(lambda key: self._champions.may_go(key, load.ref))
            self._num_evictions += slot is not None
        if slot is None:
            return False
        _wait_until_released(slot)
        return True

    def _crown(self, task: str) -> None:
        """Let the wanted champion answer, if it is in memory; the one before stays if it can be asked for."""
        if self._champions.wanted(task).key not in self._memory:
            return
        if (before := self._champions.crown(task)) is not None:
            self._num_swaps += 1
            if not self._champions.is_named(before.key):
                self._memory.drop(before.key)

    def _failure(self, key: Key) -> Failure | None:
        """Why a prompt cannot be had now."""
        failure = self._loads.failure(key)
        return None if failure is None or is_over(failure, self._clock()) else failure

    def _champion_in_memory(self, task: str) -> ServedTask | None:
        current = self._champions.current(task)
        served = None if current is None else self._memory.peek(current.key)
        return None if current is None or served is None else served.named(current.version)

    def _state(self, task: str) -> TaskState | None:
        wanted = self._champions.entry(task)
        if wanted is None:
            return None
        served, canary = self._champion_in_memory(task), wanted.canary
        return TaskState(
            task=task,
            version=served.version if served else None,
            digest=served.digest if served else None,
            labels=served.labels if served else (),
            wanted_version=wanted.version,
            wanted_digest=wanted.digest,
            problem=self._problem(task, wanted),
            canary=None if canary is None else CanaryState(version=canary.version, share=canary.share),
            shadow_version=wanted.shadow,
            others=tuple(sorted(wanted.others)),
        )

    def _problem(self, task: str, wanted: CatalogEntry) -> str | None:
        """What is wrong with the version that is wanted, or else with its canary or shadow."""
        if (failure := self._loads.failure((task, wanted.digest))) is not None:
            return failure.text
        canary = None if wanted.canary is None else wanted.canary.version
        beside = {"canary": canary, "shadow": wanted.shadow}
        for role, version in beside.items():
            if version is None:
                continue
            if (failure := self._loads.failure((task, wanted.others[version]))) is not None:
                return f"{role} version {version}: {failure.text}"
        return None


def _not_loaded(ref: PromptRef, cause: str) -> Refusal:
    return Refusal(
        reason="not_loaded", detail=f"version {ref.version} of task {ref.task!r} is not served: {cause}"
    )


async def _wait(future: "Future[ServedTask | Failure | None]", timeout_s: float) -> bool:
    """Wait for a load, which goes on whoever gives up waiting; whether it is over."""
    if not future.done() and timeout_s > 0.0:
        await asyncio.wait({asyncio.wrap_future(future)}, timeout=timeout_s)
    return future.done()


def _wait_until_released(slot: "weakref.ref[Slot]") -> None:
    """Wait until the requests that were answered from a slot are done with it."""
    deadline_s = time.monotonic() + _RELEASE_WAIT_S
    while slot() is not None and time.monotonic() < deadline_s:
        time.sleep(_RELEASE_LOOK_S)
