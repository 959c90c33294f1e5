"""Swaps are whole, failures keep the old version, and no digest is loaded twice."""

import asyncio
import threading
import time

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.engine_api import Ask
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import ServedVersion
from orchestrator.serve.residency.state import describe_served
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry
from ship.errors import ArtifactError
from tests.unit.orchestrator.serve.residency.factory import Clock, Loader, digest
from tests.unit.orchestrator.serve.residency.prompt_pool import apply, catalog, find


def test_the_catalog_is_served(residency: Residency):
    apply(residency, catalog(bolts=1, nuts=4))
    assert residency.state("bolts").version == 1
    assert residency.state("nuts").version == 4
    assert residency.state("gears") is None
    assert [state.task for state in residency.states()] == ["bolts", "nuts"]
    assert (residency.num_served, residency.num_problems) == (2, 0)


def test_only_what_changed_is_loaded(residency: Residency, load: Loader):
    apply(residency, catalog(bolts=1, nuts=1))
    apply(residency, catalog(bolts=1, nuts=2))
    assert load.loads == {"bolts-1": 1, "nuts-1": 1, "nuts-2": 1}
    assert residency.state("nuts").digest == "nuts-2"


def test_the_same_digest_under_another_version_is_not_loaded_again(residency: Residency, load: Loader):
    apply(residency, catalog(bolts=1))
    apply(residency, Catalog(entries={"bolts": CatalogEntry(version=7, digest="bolts-1")}))
    assert residency.state("bolts").version == 7
    assert residency.stats().num_swaps == 0
    assert load.loads == {"bolts-1": 1}


def test_tasks_that_left_the_catalog_are_dropped(residency: Residency, load: Loader):
    load.errors["gears-1"] = StoreError("down")
    apply(residency, catalog(bolts=1, nuts=1, gears=1))
    apply(residency, catalog(nuts=1))
    assert residency.state("bolts") is None
    assert (residency.num_served, residency.num_problems) == (1, 0)


UNREADABLE = "is missing or damaged, or cannot be read now; the log of the endpoint has the cause"
DAMAGED = f"s3://acme-plant/ship/artifacts/{'a' * 64}/prompt.json: found 3 bytes"
DOWN = 'could not connect to the endpoint URL: "http://10.0.0.7:9000/acme-plant/key?X-Amz-Signature=abc"'


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ArtifactError("changed"), "changed"),
        (StoreError(DAMAGED), f"prompt.json: it {UNREADABLE}"),
        (StoreError(DOWN), f"it {UNREADABLE}"),
        (RuntimeError("/srv/store/key"), f"it {UNREADABLE}"),
    ],
)
def test_a_failed_load_keeps_the_old_version_and_tells_clients_no_place(
    residency: Residency, load: Loader, error: Exception, text: str, caplog: pytest.LogCaptureFixture
):
    apply(residency, catalog(bolts=1, nuts=1))
    load.errors["bolts-2"] = error
    apply(residency, catalog(bolts=2, nuts=2))
    assert residency.state("bolts").version == 1
    assert residency.state("nuts").version == 2
    state = residency.state("bolts")
    assert (state.version, state.wanted_version, state.problem) == (1, 2, text)
    assert str(error) in caplog.text, "the log has the cause"


def test_what_answers_can_be_asked_for_by_its_number(residency: Residency, load: Loader):
    apply(residency, catalog(bolts=1))
    load.errors["bolts-2"] = ArtifactError("changed")
    apply(residency, catalog(bolts=2))
    assert find(residency, "bolts", version=1) == find(residency, "bolts")
    assert find(residency, "bolts", version=1).version == 1
    assert "these can: 1, 2" in find(residency, "bolts", version=3).detail


def test_a_failed_first_load_leaves_a_task_that_is_known_but_not_served(residency: Residency, load: Loader):
    load.errors["bolts-1"] = ArtifactError("wrong backbone")
    apply(residency, catalog(bolts=1))
    state = residency.state("bolts")
    assert (state.version, state.digest, state.labels, state.problem) == (None, None, (), "wrong backbone")


def test_what_the_store_failed_to_give_is_tried_again_after_a_while(
    residency: Residency, load: Loader, clock: Clock
):
    load.errors["bolts-1"] = StoreError("down")
    apply(residency, catalog(bolts=1))
    residency.refresh()
    clock.now_s += 9.0
    residency.refresh()
    assert find(residency, "bolts").reason == "not_loaded"
    assert load.loads == {"bolts-1": 1}
    del load.errors["bolts-1"]
    clock.now_s += 1.0
    residency.refresh()
    assert find(residency, "bolts").version == 1
    assert residency.state("bolts").problem is None
    assert load.loads == {"bolts-1": 2}


def test_a_request_tries_again_what_failed_a_while_ago(residency: Residency, load: Loader, clock: Clock):
    load.errors["bolts-1"] = StoreError("down")
    apply(residency, catalog(bolts=1))
    load.errors.clear()
    clock.now_s += 10.0
    assert find(residency, "bolts").version == 1


def test_a_bad_artifact_is_not_tried_again(residency: Residency, load: Loader, clock: Clock):
    load.errors["bolts-1"] = ArtifactError("changed")
    for _ in range(3):
        apply(residency, catalog(bolts=1))
        clock.now_s += 1000.0
        residency.refresh()
        assert "changed" in find(residency, "bolts").detail
    assert load.loads == {"bolts-1": 1}
    apply(residency, catalog(bolts=2))
    assert residency.state("bolts").version == 2


def test_going_back_to_what_is_served_settles_the_problem(residency: Residency, load: Loader):
    apply(residency, catalog(bolts=1))
    load.errors["bolts-2"] = ArtifactError("changed")
    apply(residency, catalog(bolts=2))
    apply(residency, catalog(bolts=1))
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


def test_a_reader_during_swaps_gets_one_version_whole(residency: Residency):
    apply(residency, catalog(bolts=1))
    done = threading.Event()
    mixed: list[ServedVersion] = []
    seen: set[int] = set()

    async def ask() -> None:
        while not done.is_set():
            served = await residency.find(Ask(task="bolts"))
            seen.add(served.version)
            # Let others run: a reader that never lets go would make every swap wait for a time slice.
            time.sleep(0)
            expected = digest("bolts", served.version)
            if (served.labels, served.digest) != ((expected,), expected):
                mixed.append(served)

    readers = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(2, 100):
        apply(residency, catalog(bolts=version))
    done.set()
    for reader in readers:
        reader.join()
    assert not mixed
    assert len(seen) > 1


def test_a_request_that_took_the_old_version_keeps_it(residency: Residency):
    apply(residency, catalog(bolts=1))
    taken = find(residency, "bolts")
    apply(residency, catalog(bolts=2))
    assert (taken.version, taken.labels, taken.digest) == (1, ("bolts-1",), "bolts-1")


def find_for_keys(residency: Residency, number: int) -> list[ServedVersion]:
    """Versions of bolts that so many keys get."""

    async def ask() -> list[ServedVersion]:
        return [await residency.find(Ask(task="bolts", key=f"line-{key}")) for key in range(number)]

    return asyncio.run(ask())


def rollout(canary: Canary | None = None, shadow: int | None = None, version: int = 1) -> Catalog:
    """Versions 1 to 4 of bolts, one of them the champion."""
    digests = {number: digest("bolts", number) for number in range(1, 5)}
    champion = digests.pop(version)
    entry = CatalogEntry(version=version, digest=champion, others=digests, canary=canary, shadow=shadow)
    return Catalog(entries={"bolts": entry})


def test_any_version_of_the_catalog_can_be_asked_for(residency: Residency, load: Loader):
    apply(residency, rollout())
    assert load.loads == {"bolts-1": 1}, "the others are loaded when a request asks"
    for version in (3, 1, 4, 3):
        served = find(residency, "bolts", version=version)
        assert (served.version, served.digest) == (version, digest("bolts", version))
    assert load.loads == {"bolts-1": 1, "bolts-3": 1, "bolts-4": 1}
    refusal = find(residency, "bolts", version=9)
    assert refusal.reason == "other_version"
    assert "1, 2, 3, 4" in refusal.detail


def test_a_version_that_cannot_be_loaded_is_refused_with_the_cause(residency: Residency, load: Loader):
    apply(residency, rollout())
    load.errors["bolts-2"] = ArtifactError("its scores are off")
    for _ in range(3):
        refusal = find(residency, "bolts", version=2)
        assert (refusal.reason, "its scores are off" in refusal.detail) == ("not_loaded", True)
    assert load.loads["bolts-2"] == 1
    assert find(residency, "bolts").version == 1
    assert residency.state("bolts").problem is None, "it was not promoted"


def test_a_task_that_is_not_in_the_catalog_costs_nothing(residency: Residency, load: Loader):
    apply(residency, catalog(bolts=1))
    assert find(residency, "gears").reason == "unknown_task"
    assert find(residency, "gears", version=1).reason == "unknown_task"
    assert load.loads == {"bolts-1": 1}


def test_a_canary_answers_for_its_share_and_is_named(residency: Residency, load: Loader):
    apply(residency, rollout(Canary(version=3, share=0.25)))
    assert load.loads == {"bolts-1": 1, "bolts-3": 1}
    found = find_for_keys(residency, 400)
    assert all(served.digest == digest("bolts", served.version) for served in found)
    assert find_for_keys(residency, 400) == found, "a key stays where it is"
    # Five standard deviations.
    assert sum(served.version == 3 for served in found) == pytest.approx(100, abs=45)
    assert residency.state("bolts").canary == Canary(version=3, share=0.25)
    assert residency.state("bolts").version == 1


def test_a_canary_that_cannot_be_loaded_costs_no_request_an_answer(residency: Residency, load: Loader):
    load.errors["bolts-3"] = ArtifactError("changed")
    apply(residency, rollout(Canary(version=3, share=0.99)))
    assert {served.version for served in find_for_keys(residency, 50)} == {1}
    assert residency.state("bolts").problem == "canary version 3: changed"
    assert residency.num_problems == 0


@pytest.mark.parametrize("beside", [{"canary": Canary(version=3, share=0.1)}, {"shadow": 3}])
def test_a_promotion_does_not_load_what_is_in_memory(
    residency: Residency, load: Loader, beside: dict[str, object]
):
    apply(residency, rollout(**beside))
    apply(residency, rollout(version=3))
    assert find(residency, "bolts").version == 3
    assert load.loads == {"bolts-1": 1, "bolts-3": 1}
    apply(residency, rollout(version=1))
    assert find(residency, "bolts").version == 1
    assert load.loads == {"bolts-1": 1, "bolts-3": 1}, "what can be asked for stays in memory"
    assert residency.stats().num_swaps == 2


def test_only_the_champions_own_answers_have_a_shadow(residency: Residency):
    apply(residency, rollout(Canary(version=3, share=0.5), shadow=4))
    found = find_for_keys(residency, 40)
    assert {(served.version, served.shadow_version) for served in found} == {(1, 4), (3, None)}
    assert find(residency, "bolts", version=1).shadow_version is None
    assert find(residency, "bolts", version=4).shadow_version is None
    assert residency.state("bolts").shadow_version == 4


@pytest.mark.parametrize("between", [catalog(), catalog(bolts=2)])
def test_what_failed_is_tried_anew_when_it_is_wanted_again(
    residency: Residency, load: Loader, between: Catalog
):
    load.errors["bolts-1"] = ArtifactError("changed")
    apply(residency, catalog(bolts=1))
    assert residency.num_problems == 1
    apply(residency, between)
    assert residency.num_problems == 0
    del load.errors["bolts-1"]
    apply(residency, catalog(bolts=1))
    assert find(residency, "bolts").version == 1


def test_one_prompt_under_two_tasks_is_two(residency: Residency, load: Loader):
    entries = {task: CatalogEntry(version=1, digest="same") for task in ("bolts", "nuts")}
    apply(residency, Catalog(entries=entries))
    assert [find(residency, task).task for task in entries] == ["bolts", "nuts"]
    assert load.loads == {"same": 2}


def test_what_happens_is_counted(residency: Residency, load: Loader, clock: Clock):
    assert residency.stats().catalog_age_s is None
    load.errors["nuts-1"] = StoreError("down")
    apply(residency, catalog(bolts=1, nuts=1))
    clock.now_s += 5.0
    assert residency.stats().catalog_age_s == 5.0
    residency.refresh()
    apply(residency, catalog(bolts=2, nuts=1))
    clock.now_s += 2.0
    stats = residency.stats()
    assert (stats.num_loads, stats.num_load_failures, stats.num_swaps, stats.num_evictions) == (2, 1, 1, 0)
    assert (stats.num_catalog_tasks, stats.num_resident) == (2, 1)
    assert (stats.resident_bytes, stats.catalog_age_s) == (load.slot.num_bytes, 2.0)


def test_tasks_that_leave_the_catalog_are_told_until_they_come_back(
    load: Loader, caplog: pytest.LogCaptureFixture
):
    residency = Residency(load)
    apply(residency, catalog(bolts=1, nuts=1, gears=1))
    assert residency.num_lost == 0
    apply(residency, catalog(bolts=1))
    assert residency.num_lost == residency.stats().num_lost == 2
    assert "2 tasks left the catalog: gears, nuts" in caplog.text
    assert describe_served(1, 0.0, 2) == "1 tasks are served, 2 left the catalog and have not come back"
    apply(residency, catalog(bolts=1, nuts=1))
    assert residency.num_lost == 1
