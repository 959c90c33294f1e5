"""A catalog larger than memory: requests load prompts, prompts in use stay, other requests do not wait."""

import asyncio
import gc
import logging

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.engine_api import Ask, Refusal
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import Canary, Catalog
from ship.errors import ArtifactError
from tests.unit.orchestrator.serve.residency.prompt_pool import (
    PATIENCE_S,
    Pool,
    apply,
    catalog,
    entry,
    find,
    held,
    in_memory,
    make,
    wait_until,
)


def test_what_does_not_fit_is_loaded_when_a_request_asks():
    residency, load = make(2)
    apply(residency, catalog(a=1, b=1, c=1, d=1))
    assert in_memory(residency) == {"a", "b"}
    assert residency.num_problems == 0, "they are there for the asking"
    assert residency.stats().num_evictions == 0, "nothing goes for a prompt without a request"
    assert find(residency, "c").digest == "c-1"
    assert in_memory(residency) == {"b", "c"}
    assert find(residency, "a").digest == "a-1"
    assert in_memory(residency) == {"a", "c"}
    assert residency.stats().num_evictions == 2
    assert load.pool.used_bytes == residency.stats().resident_bytes == 2


def test_a_full_memory_is_found_out_once_and_filled_when_tasks_leave():
    residency, load = make(2)
    apply(residency, catalog(a=1, b=1, c=1, d=1, e=1))
    assert load.started == {"a-1": 1, "b-1": 1, "c-1": 1}
    apply(residency, catalog(a=1, b=1, c=1, d=1, e=2))
    assert sum(load.started.values()) == 3
    apply(residency, catalog(d=1, e=2))
    assert in_memory(residency) == {"d", "e"}


def test_what_was_used_last_stays():
    residency, _ = make(3)
    apply(residency, catalog(a=1, b=1, c=1, d=1))
    find(residency, "a")
    residency.state("b")
    find(residency, "d")
    assert in_memory(residency) == {"a", "c", "d"}, "to look at how a task stands is no use of it"


def test_pinned_champions_never_go_and_others_of_their_task_do():
    residency, load = make(3, pinned=("line-*",))
    entries = {
        "line-1": entry("line-1", 1, others={2: "line-1-2"}, canary=Canary(version=2, share=0.5)),
        "a": entry("a", 1),
        "b": entry("b", 1),
    }
    apply(residency, Catalog(entries=entries))
    find(residency, "line-1", version=2)
    for task in ("a", "b", "a", "b"):
        assert find(residency, task).version == 1
    assert residency.state("line-1").version == 1
    assert load.loads["line-1-1"] == 1
    assert load.loads["line-1-2"] == 1
    assert in_memory(residency) == {"line-1", "a", "b"}


def test_a_pinned_champion_that_comes_later_makes_room():
    residency, _ = make(1, pinned=("line-*",))
    apply(residency, catalog(a=1))
    apply(residency, catalog(**{"a": 1, "line-1": 1}))
    assert in_memory(residency) == {"line-1"}
    refusal = find(residency, "a")
    assert (refusal.reason, "do not fit" in refusal.detail) == ("not_loaded", True)


def test_a_swap_lets_others_go_but_not_the_version_that_answers():
    residency, load = make(2)
    apply(residency, catalog(a=1, b=1))
    find(residency, "b")
    apply(residency, catalog(a=2, b=1))
    assert residency.state("a").version == 2
    assert load.pool.used_bytes == 1
    assert find(residency, "b").version == 1
    assert residency.stats().num_swaps == 1


def test_a_swap_without_room_for_both_keeps_the_old_version_and_says_so():
    residency, load = make(1)
    apply(residency, catalog(a=1))
    apply(residency, catalog(a=2))
    assert find(residency, "a").version == 1
    assert "do not fit" in residency.state("a").problem
    assert load.loads == {"a-1": 1}


def test_an_old_version_that_gave_way_comes_back_while_its_successor_is_bad():
    residency, load = make(1)
    apply(residency, catalog(a=1, b=1))
    load.errors["a-2"] = ArtifactError("changed")
    apply(residency, catalog(a=2, b=1))
    assert find(residency, "b").version == 1
    assert residency.state("a").version is None
    assert find(residency, "a").version == 1
    assert residency.state("a").problem == "changed"


def test_an_old_version_that_comes_back_by_its_number_does_not_stay_champion():
    residency, load = make(2)
    apply(residency, catalog(a=1, b=1, c=1))
    for task in ("b", "c"):
        find(residency, task)
    promoted = entry("a", 2, others={1: "a-1"})
    apply(residency, Catalog(entries={**catalog(b=1, c=1).entries, "a": promoted}))
    assert load.loads["a-2"] == 0, "no request asked for it, and there is no room"
    assert find(residency, "a", version=1).version == 1
    assert find(residency, "a").version == 1
    apply(residency, Catalog(entries={**catalog(b=1, c=1).entries, "a": promoted}))
    assert find(residency, "a").version == 2


def test_a_prompt_in_use_lives_until_its_request_is_done():
    residency, load = make(1, release_wait_s=PATIENCE_S)
    apply(residency, catalog(a=1, b=1))
    taken = [find(residency, "a")]

    async def ask() -> ServedVersion | Refusal:
        found = asyncio.create_task(residency.find(Ask(task="b")))
        await asyncio.to_thread(wait_until, lambda: residency.stats().num_evictions == 1)
        assert not found.done()
        assert taken[0].labels == ("a-1",)
        assert load.pool.used_bytes == 1
        taken.clear()
        return await found

    assert asyncio.run(ask()).digest == "b-1"


def test_a_load_holds_up_only_its_own_task():
    residency, load = make(2)
    apply(residency, catalog(a=1, b=1, c=1))

    async def ask() -> list[ServedVersion | Refusal]:
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


def test_a_waiting_request_is_not_behind_loads_in_advance():
    residency, load = make(10)
    with held(load, "a"):
        residency.apply(catalog(a=1, b=1, c=1))
        # A request may be faster than the thread that loads in advance.
        wait_until(lambda: load.started["a-1"] == 1)
        assert find(residency, "c").digest == "c-1"
        assert load.started["b-1"] == 0, "its turn comes after a"
    assert find(residency, "b").digest == "b-1"
    assert load.started == {"a-1": 1, "b-1": 1, "c-1": 1}


def test_a_request_for_a_prompt_loaded_in_advance_gets_room_for_it():
    residency, load = make(1)
    apply(residency, catalog(a=1))
    with held(load, "b") as gate:
        residency.apply(catalog(a=1, b=1))
        wait_until(lambda: load.started["b-1"] == 1)

        async def ask() -> ServedVersion | Refusal:
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
        residency.apply(catalog(a=1))
        refusal = asyncio.run(residency.find(Ask(task="a"), patience_s))
        assert (refusal.reason, "still being loaded" in refusal.detail) == ("not_loaded", True)
        assert refusal.is_loading
    assert find(residency, "a").version == 1
    assert load.started == {"a-1": 1}


def test_a_request_that_is_cancelled_leaves_the_load_to_others():
    residency, load = make(10)

    async def ask() -> ServedVersion | Refusal:
        with held(load, "a") as gate:
            residency.apply(catalog(a=1))
            first, second = (asyncio.create_task(residency.find(Ask(task="a"))) for _ in range(2))
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            gate.set()
            return await second

    assert asyncio.run(ask()).version == 1
    assert load.started == {"a-1": 1}


def test_all_requests_that_wait_for_a_load_that_fails_are_told_why():
    residency, load = make(10)
    load.errors["a-1"] = StoreError("no route to host")

    async def ask() -> list[ServedVersion | Refusal]:
        with held(load, "a") as gate:
            residency.apply(catalog(a=1))
            found = [asyncio.create_task(residency.find(Ask(task="a"))) for _ in range(5)]
            await asyncio.sleep(0.01)
            gate.set()
            return await asyncio.gather(*found)

    assert all("cannot be read now" in refusal.detail for refusal in asyncio.run(ask()))
    assert load.started == {"a-1": 1}


def test_a_task_that_left_the_catalog_while_it_was_loaded_is_not_kept():
    residency, load = make(10)
    with held(load, "a"):
        residency.apply(catalog(a=1))
        wait_until(lambda: load.started["a-1"] == 1)
        residency.apply(catalog(b=1))
    assert find(residency, "b").version == 1
    assert residency.wait_loaded(PATIENCE_S)
    assert load.loads["a-1"] == 1
    assert residency.stats().num_resident == 1
    # Its thread still has it for a moment after its load is over.
    wait_until(lambda: load.pool.used_bytes == 1)


def test_a_refused_prompt_has_given_its_room_back_when_its_load_is_over():
    pool, used_bytes = Pool(1), []

    def load(ref: PromptRef, make_room: object) -> ServedVersion:
        slot = pool.insert(1)
        raise ArtifactError(f"prompt of {slot.num_bytes} bytes: it was changed")

    class Report(logging.Handler):
        """The warning is the last that a load does, in its own thread."""

        def emit(self, record: logging.LogRecord) -> None:
            used_bytes.append(pool.used_bytes)

    report, log = Report(), logging.getLogger("orchestrator.serve.residency.residency")
    log.addHandler(report)
    gc.disable()
    try:
        residency = Residency(load)
        apply(residency, catalog(a=1))
    finally:
        gc.enable()
        log.removeHandler(report)
    assert "it was changed" in residency.state("a").problem
    assert used_bytes == [0]
