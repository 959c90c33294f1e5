"""A catalog larger than memory: what is asked for comes in, what is in use stays, and nobody else waits."""

import asyncio
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch

from orchestrator.errors import StoreError
from orchestrator.serve import residency as residency_module
from orchestrator.serve.engine_api import Ask, Refusal
from orchestrator.serve.residency import PromptRef, Residency, ServedTask
from orchestrator.store.catalog import Canary, Catalog, CatalogEntry
from ship.errors import ArtifactError, SlotsFullError
from ship.slots import Slot

# What must happen at some time. Nothing waits for as long when it works.
PATIENCE_S = 60.0
EMPTY = torch.empty(0)


class Pool:
    """So many bytes for slots, which come back when nobody holds a slot any more."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes, self.used_bytes = capacity_bytes, 0
        self._lock = threading.RLock()

    def insert(self, num_bytes: int) -> Slot:
        with self._lock:
            if self.used_bytes + num_bytes > self.capacity_bytes:
                raise SlotsFullError(f"{num_bytes} bytes do not fit beside {self.used_bytes}")
            self.used_bytes += num_bytes
        slot = Slot(
            keys_values_LP2=EMPTY,
            attribute_at={},
            num_attribute=(),
            prototypes_R=EMPTY,
            inverse_norm_R=EMPTY,
            head_C=EMPTY,
            bias_C=EMPTY,
            gate_L=EMPTY,
            attribute_mix=0.0,
            num_bytes=num_bytes,
        )
        weakref.finalize(slot, self._give_back, num_bytes)
        return slot

    def _give_back(self, num_bytes: int) -> None:
        with self._lock:
            self.used_bytes -= num_bytes


@dataclass
class Loader:
    """Loads into a pool as the real one does; holds loads of the tasks that it is told to hold."""

    pool: Pool
    num_bytes: Callable[[PromptRef], int] = lambda ref: 1
    errors: dict[str, Exception] = field(default_factory=dict)
    loads: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, ref: PromptRef, make_room: Callable[[], bool]) -> ServedTask:
        with self.lock:
            self.started[ref.digest] += 1
        if (gate := self.gates.get(ref.task)) is not None:
            assert gate.wait(PATIENCE_S)
        if error := self.errors.get(ref.digest):
            raise error
        slot = self._insert(self.num_bytes(ref), make_room)
        with self.lock:
            self.loads[ref.digest] += 1
        return ServedTask(
            task=ref.task, version=ref.version, digest=ref.digest, labels=(ref.digest,), slot=slot
        )

    def _insert(self, num_bytes: int, make_room: Callable[[], bool]) -> Slot:
        while True:
            try:
                return self.pool.insert(num_bytes)
            except SlotsFullError:
                if not make_room():
                    raise


def catalog(**versions: int) -> Catalog:
    return Catalog(entries={task: entry(task, version) for task, version in versions.items()})


def entry(task: str, version: int, **more: object) -> CatalogEntry:
    return CatalogEntry(version=version, digest=f"{task}-{version}", **more)


def find(residency: Residency, task: str, **asked: object) -> ServedTask | Refusal:
    return asyncio.run(residency.find(Ask(task=task, **asked)))


def in_memory(residency: Residency) -> set[str]:
    return {state.task for state in residency.states() if state.version is not None}


@contextmanager
def held(load: Loader, task: str) -> Iterator[threading.Event]:
    """Loads of a task do not end in the block, unless the event is set."""
    gate = load.gates[task] = threading.Event()
    try:
        yield gate
    finally:
        gate.set()


def make(capacity_bytes: int, **options: object) -> tuple[Residency, Loader]:
    load = Loader(Pool(capacity_bytes))
    options = {"load_wait_s": PATIENCE_S, "num_loaders": 1} | options
    return Residency(load, **options), load


def test_what_does_not_fit_is_loaded_when_somebody_asks():
    residency, load = make(2)
    residency.apply(catalog(a=1, b=1, c=1, d=1))
    assert in_memory(residency) == {"a", "b"}
    assert residency.num_problems == 0, "they are there for the asking"
    assert residency.stats().num_evictions == 0, "nothing goes for what nobody asked for"
    assert find(residency, "c").digest == "c-1"
    assert in_memory(residency) == {"b", "c"}
    assert find(residency, "a").digest == "a-1"
    assert in_memory(residency) == {"a", "c"}
    assert residency.stats().num_evictions == 2
    assert load.pool.used_bytes == residency.stats().resident_bytes == 2


def test_a_full_memory_is_found_out_once_and_filled_when_tasks_leave():
    residency, load = make(2)
    residency.apply(catalog(a=1, b=1, c=1, d=1, e=1))
    assert load.started == {"a-1": 1, "b-1": 1, "c-1": 1}
    residency.apply(catalog(a=1, b=1, c=1, d=1, e=2))
    assert sum(load.started.values()) == 3
    residency.apply(catalog(d=1, e=2))
    assert in_memory(residency) == {"d", "e"}


def test_what_was_used_last_stays():
    residency, _ = make(3)
    residency.apply(catalog(a=1, b=1, c=1, d=1))
    find(residency, "a")
    residency.state("b")
    residency.get("b")
    find(residency, "d")
    assert in_memory(residency) == {"a", "c", "d"}, "to look at how a task stands is no use of it"


def test_pinned_champions_never_go_and_others_of_their_task_do():
    residency, load = make(3, pinned=("line-*",))
    entries = {
        "line-1": entry("line-1", 1, others={2: "line-1-2"}, canary=Canary(version=2, share=0.5)),
        "a": entry("a", 1),
        "b": entry("b", 1),
    }
    residency.apply(Catalog(entries=entries))
    find(residency, "line-1", version=2)
    for task in ("a", "b", "a", "b"):
        assert find(residency, task).version == 1
    assert residency.get("line-1").version == 1
    assert load.loads["line-1-1"] == 1
    assert load.loads["line-1-2"] == 1
    assert in_memory(residency) == {"line-1", "a", "b"}


def test_a_pinned_champion_that_comes_later_makes_room():
    residency, _ = make(1, pinned=("line-*",))
    residency.apply(catalog(a=1))
    residency.apply(catalog(**{"a": 1, "line-1": 1}))
    assert in_memory(residency) == {"line-1"}
    refusal = find(residency, "a")
    assert (refusal.reason, "do not fit" in refusal.detail) == ("not_loaded", True)


def test_a_swap_lets_others_go_but_not_the_version_that_answers():
    residency, load = make(2)
    residency.apply(catalog(a=1, b=1))
    find(residency, "b")
    residency.apply(catalog(a=2, b=1))
    assert residency.get("a").version == 2
    assert load.pool.used_bytes == 1
    assert find(residency, "b").version == 1
    assert residency.stats().num_swaps == 1


def test_a_swap_without_room_for_both_keeps_the_old_version_and_says_so():
    residency, load = make(1)
    residency.apply(catalog(a=1))
    residency.apply(catalog(a=2))
    assert find(residency, "a").version == 1
    assert "do not fit" in residency.state("a").problem
    assert load.loads == {"a-1": 1}


def test_an_old_version_that_gave_way_comes_back_while_its_successor_is_bad():
    residency, load = make(1)
    residency.apply(catalog(a=1, b=1))
    load.errors["a-2"] = ArtifactError("changed")
    residency.apply(catalog(a=2, b=1))
    assert find(residency, "b").version == 1
    assert residency.get("a") is None
    assert find(residency, "a").version == 1
    assert residency.state("a").problem == "changed"


def test_an_old_version_that_comes_back_by_its_number_does_not_stay_champion():
    residency, load = make(2)
    residency.apply(catalog(a=1, b=1, c=1))
    for task in ("b", "c"):
        find(residency, task)
    promoted = entry("a", 2, others={1: "a-1"})
    residency.apply(Catalog(entries={**catalog(b=1, c=1).entries, "a": promoted}))
    assert load.loads["a-2"] == 0, "nobody asked for it, and there is no room"
    assert find(residency, "a", version=1).version == 1
    assert find(residency, "a").version == 1
    residency.apply(Catalog(entries={**catalog(b=1, c=1).entries, "a": promoted}))
    assert find(residency, "a").version == 2


def test_a_prompt_in_use_lives_until_its_request_is_done(monkeypatch: pytest.MonkeyPatch):
    residency, load = make(1)
    residency.apply(catalog(a=1, b=1))
    taken = [find(residency, "a")]
    waiting = threading.Event()
    wait = residency_module._wait_until_released

    def note_and_wait(slot: "weakref.ref[Slot]") -> None:
        assert slot() is not None
        waiting.set()
        wait(slot)

    monkeypatch.setattr(residency_module, "_wait_until_released", note_and_wait)
    monkeypatch.setattr(residency_module, "_RELEASE_WAIT_S", PATIENCE_S)

    async def ask() -> ServedTask | Refusal:
        found = asyncio.create_task(residency.find(Ask(task="b")))
        assert await asyncio.to_thread(waiting.wait, PATIENCE_S)
        assert not found.done()
        assert taken[0].labels == ("a-1",)
        assert load.pool.used_bytes == 1
        taken.clear()
        return await found

    assert asyncio.run(ask()).digest == "b-1"


def test_a_load_holds_up_only_its_own_task():
    residency, load = make(2)
    residency.apply(catalog(a=1, b=1, c=1))

    async def ask() -> list[ServedTask | Refusal]:
        with held(load, "c") as gate:
            cold = [asyncio.create_task(residency.find(Ask(task="c"))) for _ in range(20)]
            await asyncio.sleep(0)
            for task in ("a", "b", "a"):
                assert (await residency.find(Ask(task=task))).task == task
            assert not any(found.done() for found in cold)
            gate.set()
            return await asyncio.gather(*cold)

    assert {found.digest for found in asyncio.run(ask())} == {"c-1"}
    assert load.loads["c-1"] == 1, "one load, however many ask"


def test_who_waits_is_not_behind_what_is_loaded_in_advance():
    residency, load = make(10)
    with held(load, "a"):
        residency.apply(catalog(a=1, b=1, c=1), wait=False)
        assert find(residency, "c").digest == "c-1"
        assert load.started["b-1"] == 0, "its turn comes after a"
    assert find(residency, "b").digest == "b-1"
    assert load.started == {"a-1": 1, "b-1": 1, "c-1": 1}


def test_who_asks_for_what_is_loaded_in_advance_gets_room_for_it():
    residency, load = make(1)
    residency.apply(catalog(a=1))
    with held(load, "b") as gate:
        residency.apply(catalog(a=1, b=1), wait=False)
        while not load.started["b-1"]:
            pass

        async def ask() -> ServedTask | Refusal:
            found = asyncio.create_task(residency.find(Ask(task="b")))
            await asyncio.sleep(0)
            gate.set()
            return await found

        assert asyncio.run(ask()).digest == "b-1"
    assert load.started["b-1"] == 1


@pytest.mark.parametrize("limit", ["load_wait_s", "patience_s"])
def test_patience_ends_before_the_load_and_the_load_goes_on(limit: str):
    residency, load = make(10, load_wait_s=0.02 if limit == "load_wait_s" else PATIENCE_S)
    patience_s = 0.02 if limit == "patience_s" else PATIENCE_S
    with held(load, "a"):
        residency.apply(catalog(a=1), wait=False)
        refusal = asyncio.run(residency.find(Ask(task="a"), patience_s))
        assert (refusal.reason, "still being loaded" in refusal.detail) == ("not_loaded", True)
    assert find(residency, "a").version == 1
    assert load.started == {"a-1": 1}


def test_a_request_that_is_cancelled_leaves_the_load_to_others():
    residency, load = make(10)

    async def ask() -> ServedTask | Refusal:
        with held(load, "a") as gate:
            residency.apply(catalog(a=1), wait=False)
            first, second = (asyncio.create_task(residency.find(Ask(task="a"))) for _ in range(2))
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            gate.set()
            return await second

    assert asyncio.run(ask()).version == 1
    assert load.started == {"a-1": 1}


def test_everybody_who_waits_for_a_load_that_fails_is_told_why():
    residency, load = make(10)
    load.errors["a-1"] = StoreError("no route to host")

    async def ask() -> list[ServedTask | Refusal]:
        with held(load, "a") as gate:
            residency.apply(catalog(a=1), wait=False)
            found = [asyncio.create_task(residency.find(Ask(task="a"))) for _ in range(5)]
            await asyncio.sleep(0.01)
            gate.set()
            return await asyncio.gather(*found)

    assert all("no route to host" in refusal.detail for refusal in asyncio.run(ask()))
    assert load.started == {"a-1": 1}


def test_a_task_that_left_the_catalog_while_it_was_loaded_is_not_kept():
    residency, load = make(10)
    with held(load, "a"):
        residency.apply(catalog(a=1), wait=False)
        while not load.started["a-1"]:
            pass
        residency.apply(catalog(b=1), wait=False)
    assert find(residency, "b").version == 1
    # The load of a has one thread with b's, and was before it.
    assert load.loads["a-1"] == 1
    assert residency.stats().num_resident == 1
    assert load.pool.used_bytes == 1


NUM_TASKS, NUM_VERSIONS, CAPACITY, NUM_STEPS = 8, 4, 24, 250


class Walk:
    """Asks, promotes, drops and fails at random, and checks what must always hold."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.load = Loader(Pool(CAPACITY), num_bytes=lambda ref: 1 + ref.version)
        # Without a key the champion answers.
        self.residency = Residency(
            self._checked_load,
            3,
            pinned=("t-0",),
            load_wait_s=PATIENCE_S,
            retry_s=0.01,
            draw=lambda: 0.99,
        )
        self.wanted: dict[str, CatalogEntry] = {}
        self.under_way: Counter[tuple[str, str]] = Counter()
        self.doubled: list[PromptRef] = []
        self.was_down = False
        self.answered = 0

    def _checked_load(self, ref: PromptRef, make_room: Callable[[], bool]) -> ServedTask:
        with self.load.lock:
            self.under_way[ref.key] += 1
            is_down = sum(self.load.loads.values()) % 11 == 10 and not self.was_down
            self.was_down = is_down
            if self.under_way[ref.key] > 1 or ref.key in self.residency._memory:
                self.doubled.append(ref)
        try:
            if is_down:
                raise StoreError("down")
            return self.load(ref, make_room)
        finally:
            with self.load.lock:
                self.under_way[ref.key] -= 1

    def promote(self) -> None:
        """Change one task of the catalog, or take it out."""
        task = f"t-{self.random.randrange(NUM_TASKS)}"
        if self.random.random() < 0.1:
            self.wanted.pop(task, None)
        else:
            versions = list(range(1, NUM_VERSIONS + 1))
            self.random.shuffle(versions)
            champion, *others = versions
            canary = Canary(version=others[0], share=0.3) if self.random.random() < 0.3 else None
            shadow = others[1] if self.random.random() < 0.3 else None
            digests = {version: f"{task}-{version}" for version in others}
            self.wanted[task] = entry(task, champion, others=digests, canary=canary, shadow=shadow)
        catalog = Catalog(entries=dict(self.wanted))
        self.residency.apply(catalog, wait=self.random.random() < 0.2)

    async def ask(self, seed: int) -> None:
        """Ask one task again and again."""
        draws = random.Random(seed)
        for _ in range(NUM_STEPS):
            version = draws.choice([None, None, 1, 2, 3, 4])
            task = f"t-{draws.randrange(NUM_TASKS)}"
            found = await self.residency.find(Ask(task=task, version=version, key=str(draws.random())))
            if isinstance(found, ServedTask):
                expected = f"{task}-{found.version}"
                assert (found.task, found.digest, found.labels) == (task, expected, (expected,))
                assert version in (None, found.version)
                self.answered += 1
            assert self.load.pool.used_bytes <= CAPACITY
            # Nobody keeps a prompt while waiting for another one.
            del found
            if draws.random() < 0.2:
                await asyncio.sleep(0)

    def is_answered_by(self, task: str, version: int) -> bool:
        found = find(self.residency, task)
        if isinstance(found, ServedTask) and found.version == version:
            return True
        time.sleep(0.01)
        return False

    def check_at_rest(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        # A thread that has just loaded something lets go of it a moment later.
        while self.load.pool.used_bytes != self.residency.stats().resident_bytes:
            assert time.monotonic() < deadline_s, "somebody keeps what was evicted"
        for task, wanted in self.wanted.items():
            # The store may be down once more, and the version before answers while it is.
            assert any(self.is_answered_by(task, wanted.version) for _ in range(100))
        stats = self.residency.stats()
        assert stats.num_loads == sum(self.load.loads.values())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_at_once_no_answer_is_mixed_and_nothing_is_loaded_twice(seed: int):
    walk = Walk(seed)
    for _ in range(4 * NUM_TASKS):
        walk.promote()

    async def ask() -> None:
        done = threading.Event()

        def promote() -> None:
            while not done.is_set():
                walk.promote()
                walk.residency.refresh()
                done.wait(0.002)

        promoting = asyncio.create_task(asyncio.to_thread(promote))
        try:
            await asyncio.gather(*(walk.ask(1000 * seed + number) for number in range(8)))
        finally:
            done.set()
            await promoting

    asyncio.run(ask())
    walk.residency.apply(Catalog(entries=dict(walk.wanted)))
    assert not walk.doubled
    assert walk.answered > NUM_STEPS
    assert walk.residency.stats().num_evictions > 0
    walk.check_at_rest()
