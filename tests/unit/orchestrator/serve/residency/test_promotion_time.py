"""A promotion reaches every replica within five seconds: the real steps on a clock of their own.

Poller and followers look at their intervals, with any phase. Each look sees what is there when it begins, and
has its effect when it ends: what happens in between is seen by the next one.
"""

import copy
import heapq
import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.poller import POLL_S
from orchestrator.serve.residency.follower import CatalogFollower
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.registry.fake_mlflow import make_registry
from tests.unit.orchestrator.serve.factory import make_served
from tests.unit.orchestrator.serve.residency.prompt_pool import PATIENCE_S, apply, find

LIMIT_S = 5.0
# The most that is allowed for: a look at MLflow with the write of the catalog, a look at the catalog, a load.
POLL_STEP_S, FOLLOW_STEP_S, LOAD_S = 0.4, 0.2, 0.6
NUM_REPLICAS = 3


class Seen:
    """Registry or catalog as it was when a look began."""

    def __init__(self, source: World | PromptStore) -> None:
        if isinstance(source, World):
            self.registry = make_registry(copy.deepcopy(source.mlflow))
        else:
            self.found_catalog = source.read_catalog()


class Source:
    """A catalog that cannot be read until it can."""

    found: tuple[Catalog, str] | None = None
    error: StoreError | None = None

    def read_catalog(self) -> tuple[Catalog, str] | None:
        if self.error is not None:
            raise self.error
        return self.found


class Replica:
    """Residency and follower, as an engine has them."""

    def __init__(self, slot: Slot) -> None:
        self.residency = Residency(lambda ref, make_room: load(ref, slot))
        self.source = Source()
        self.follower = CatalogFollower(self.source, self.residency)

    @property
    def version(self) -> int | None:
        state = self.residency.state("bolts")
        return None if state is None else state.version

    def follow(self, seen: Seen) -> None:
        self.source.found = seen.found_catalog
        self.follower.step()
        if seen.found_catalog is not None:
            # Once more, to wait for what the step began to load.
            apply(self.residency, seen.found_catalog[0])


def load(ref: PromptRef, slot: Slot) -> ServedVersion:
    return ServedVersion(task=ref.task, version=ref.version, digest=ref.digest, labels=("a",), slot=slot)


class Simulation:
    """Things that happen at their times."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, time_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._numbers), do))

    def every(
        self,
        first_s: float,
        pause_s: float,
        step_s: float,
        begin: Callable[[], Seen],
        end: Callable[[Seen], object],
    ) -> None:
        """Look, act on it, pause, and so on."""

        def look() -> None:
            seen = begin()

            def act() -> None:
                end(seen)
                self.at(self.now_s + pause_s, look)

            self.at(self.now_s + step_s, act)

        self.at(first_s, look)

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, do = heapq.heappop(self._events)
            do()
        self.now_s = until_s


class Endpoint:
    """A poller and some replicas on one store, each with a phase of its own."""

    def __init__(self, folder: Path, slot: Slot, draws: random.Random, poll_s: float = POLL_S) -> None:
        self.world, self.time = World(), Simulation()
        for number in range(1, 30):
            self.world.add(number=number)
        self.promote(1)
        store = PromptStore(LocalObjects(folder))
        CatalogWriter(self.world.registry, store).update()
        self.replicas = [Replica(slot) for _ in range(NUM_REPLICAS)]
        self.time.every(
            draws.uniform(0, poll_s),
            poll_s,
            POLL_STEP_S,
            lambda: Seen(self.world),
            lambda seen: CatalogWriter(seen.registry, store).update(),
        )
        for replica in self.replicas:
            first_s, pause_s = draws.uniform(0, 1.0), EngineOptions().poll_s
            self.time.every(first_s, pause_s, FOLLOW_STEP_S, lambda: Seen(store), replica.follow)

    def promote(self, version: int) -> None:
        self.world.move_by_hand("champion", version)
        self.world.move_by_hand("previous", max(1, version - 1))

    @property
    def versions(self) -> set[int | None]:
        return {replica.version for replica in self.replicas}


@pytest.fixture(scope="module")
def slot(runtime: Runtime) -> Slot:
    return make_served(runtime, "any").slot


def test_the_intervals_and_steps_add_up_to_less():
    # A promotion that just misses one look is seen by the next; the same for what that one wrote.
    poller_s = POLL_STEP_S + POLL_S + POLL_STEP_S
    follower_s = FOLLOW_STEP_S + EngineOptions().poll_s + FOLLOW_STEP_S
    assert poller_s + follower_s + LOAD_S <= LIMIT_S


@pytest.mark.parametrize("seed", range(5))
def test_a_promotion_reaches_every_replica_in_time(tmp_path: Path, slot: Slot, seed: int):
    draws = random.Random(seed)
    endpoint = Endpoint(tmp_path, slot, draws)
    endpoint.time.run(until_s=10.0)
    for version in range(2, 22):
        assert endpoint.versions == {version - 1}
        endpoint.promote(version)
        endpoint.time.run(until_s=endpoint.time.now_s + LIMIT_S - LOAD_S)
        assert endpoint.versions == {version}
        endpoint.time.run(until_s=endpoint.time.now_s + draws.uniform(0, 3.0))


def test_longer_intervals_would_not_do(tmp_path: Path, slot: Slot):
    late = 0
    endpoint = Endpoint(tmp_path, slot, random.Random(0), poll_s=3 * POLL_S)
    for version in range(2, 12):
        endpoint.promote(version)
        endpoint.time.run(until_s=endpoint.time.now_s + LIMIT_S - LOAD_S)
        late += endpoint.versions != {version}
    assert late


def test_a_replica_is_ready_once_it_knows_a_catalog(slot: Slot):
    source = Source()
    gate = threading.Event()

    def wait_and_load(ref: PromptRef, make_room: Callable[[int], bool]) -> ServedVersion:
        assert ref.task == "zips" or gate.wait(PATIENCE_S)
        return load(ref, slot)

    residency = Residency(wait_and_load)
    follower = CatalogFollower(source, residency)
    follower.step()
    assert not follower.is_synced
    source.error = StoreError("down")
    follower.step()
    assert not follower.is_synced
    source.error = None
    tasks = {f"t-{number}": CatalogEntry(version=1, digest="d") for number in range(100)}
    source.found = (Catalog(entries={**tasks, "zips": CatalogEntry(version=1, digest="d")}), "1")
    threading.Thread(target=follower.step, daemon=True).start()
    try:
        assert follower.wait_synced(PATIENCE_S)
        assert (residency.num_served, residency.num_loading) == (0, 101)
        assert find(residency, "zips").version == 1, "a request waits for that load alone"
    finally:
        gate.set()
    assert residency.wait_loaded(PATIENCE_S)
    assert (residency.num_served, residency.num_loading) == (101, 0)
