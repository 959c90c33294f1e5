"""Swaps are whole, failures keep the old version, and no digest is loaded twice."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.residency import Residency, ServedTask
from orchestrator.store.catalog import Catalog, CatalogEntry
from ship.errors import ArtifactError
from ship.runtime import Runtime
from ship.slots import Slot
from tests.unit.orchestrator.serve.factory import make_served


def catalog(**versions: int) -> Catalog:
    """A catalog in which each version of each task has a digest of its own."""
    return Catalog(
        entries={task: CatalogEntry(version=v, digest=digest(task, v)) for task, v in versions.items()}
    )


def digest(task: str, version: int) -> str:
    return f"{task}-{version}"


@dataclass
class Loader:
    """Makes served tasks that say of themselves what they are; fails for the digests it is told to."""

    slot: Slot
    errors: dict[str, Exception] = field(default_factory=dict)
    loads: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, task: str, entry: CatalogEntry) -> ServedTask:
        with self.lock:
            self.loads[entry.digest] += 1
        if error := self.errors.get(entry.digest):
            raise error
        labels = (f"{task}-{entry.version}",)
        return ServedTask(
            task=task, version=entry.version, digest=entry.digest, labels=labels, slot=self.slot
        )


@pytest.fixture
def load(runtime: Runtime) -> Loader:
    return Loader(make_served(runtime, "any").slot)


@pytest.fixture
def residency(load: Loader) -> Residency:
    return Residency(load)


def test_the_catalog_is_served(residency: Residency):
    residency.apply(catalog(bolts=1, nuts=4))
    assert residency.get("bolts").version == 1
    assert residency.get("nuts").version == 4
    assert residency.get("gears") is None
    assert [state.task for state in residency.states()] == ["bolts", "nuts"]
    assert (residency.num_served, residency.num_problems) == (2, 0)


def test_only_what_changed_is_loaded(residency: Residency, load: Loader):
    residency.apply(catalog(bolts=1, nuts=1))
    residency.apply(catalog(bolts=1, nuts=2))
    assert load.loads == {"bolts-1": 1, "nuts-1": 1, "nuts-2": 1}
    assert residency.get("nuts").digest == "nuts-2"


def test_the_same_digest_under_another_version_is_not_loaded_again(residency: Residency, load: Loader):
    residency.apply(catalog(bolts=1))
    residency.apply(Catalog(entries={"bolts": CatalogEntry(version=7, digest="bolts-1")}))
    assert residency.get("bolts").version == 7
    assert load.loads == {"bolts-1": 1}


def test_tasks_that_left_the_catalog_are_dropped(residency: Residency, load: Loader):
    load.errors["gears-1"] = StoreError("down")
    residency.apply(catalog(bolts=1, nuts=1, gears=1))
    residency.apply(catalog(nuts=1))
    assert residency.get("bolts") is None
    assert residency.state("bolts") is None
    assert (residency.num_served, residency.num_problems) == (1, 0)


@pytest.mark.parametrize("error", [ArtifactError("changed"), StoreError("changed"), RuntimeError("changed")])
def test_a_failed_load_keeps_the_old_version_and_says_so(
    residency: Residency, load: Loader, error: Exception
):
    residency.apply(catalog(bolts=1, nuts=1))
    load.errors["bolts-2"] = error
    residency.apply(catalog(bolts=2, nuts=2))
    assert residency.get("bolts").version == 1
    assert residency.get("nuts").version == 2
    state = residency.state("bolts")
    assert (state.version, state.wanted_version, state.problem) == (1, 2, "changed")


def test_a_failed_first_load_leaves_a_task_that_is_known_but_not_served(residency: Residency, load: Loader):
    load.errors["bolts-1"] = ArtifactError("wrong backbone")
    residency.apply(catalog(bolts=1))
    assert residency.get("bolts") is None
    state = residency.state("bolts")
    assert (state.version, state.digest, state.labels, state.problem) == (None, None, (), "wrong backbone")


def test_what_the_store_failed_to_give_is_tried_again(residency: Residency, load: Loader):
    load.errors["bolts-1"] = StoreError("down")
    residency.apply(catalog(bolts=1))
    assert residency.can_retry
    del load.errors["bolts-1"]
    residency.apply(catalog(bolts=1))
    assert residency.get("bolts").version == 1
    assert residency.state("bolts").problem is None
    assert not residency.can_retry


def test_a_bad_artifact_is_not_tried_again(residency: Residency, load: Loader):
    load.errors["bolts-1"] = ArtifactError("changed")
    for _ in range(3):
        residency.apply(catalog(bolts=1))
    assert load.loads == {"bolts-1": 1}
    assert not residency.can_retry
    residency.apply(catalog(bolts=2))
    assert residency.get("bolts").version == 2


def test_going_back_to_what_is_served_settles_the_problem(residency: Residency, load: Loader):
    residency.apply(catalog(bolts=1))
    load.errors["bolts-2"] = ArtifactError("changed")
    residency.apply(catalog(bolts=2))
    residency.apply(catalog(bolts=1))
    assert residency.state("bolts").problem is None
    assert load.loads["bolts-1"] == 1


def test_many_threads_that_want_the_same_catalog_load_each_digest_once(residency: Residency, load: Loader):
    wanted = catalog(**{f"task-{number}": 1 for number in range(20)})
    threads = [threading.Thread(target=residency.apply, args=(wanted,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(load.loads.values()) == {1}
    assert residency.num_served == 20


def test_whoever_reads_during_swaps_gets_one_version_whole(residency: Residency):
    residency.apply(catalog(bolts=1))
    done = threading.Event()
    mixed: list[ServedTask] = []
    seen: set[int] = set()

    def read() -> None:
        while not done.is_set():
            served = residency.get("bolts")
            seen.add(served.version)
            # Let others run: a reader that never lets go would make every swap wait for a time slice.
            time.sleep(0)
            if (served.labels, served.digest) != (
                (f"bolts-{served.version}",),
                digest("bolts", served.version),
            ):
                mixed.append(served)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(2, 100):
        residency.apply(catalog(bolts=version))
    done.set()
    for reader in readers:
        reader.join()
    assert not mixed
    assert len(seen) > 1


def test_a_request_that_took_the_old_version_keeps_it(residency: Residency):
    residency.apply(catalog(bolts=1))
    taken = residency.get("bolts")
    residency.apply(catalog(bolts=2))
    assert (taken.version, taken.labels, taken.digest) == (1, ("bolts-1",), "bolts-1")
