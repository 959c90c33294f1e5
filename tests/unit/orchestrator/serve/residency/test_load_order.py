"""Order of loads: prompts with waiting requests, then promotions, then the rest, which evict nothing."""

import threading

import pytest

from orchestrator.serve.residency.champions import Champions
from orchestrator.serve.residency.loads import Load, LoadQueue, Precedence
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry
from tests.unit.orchestrator.serve.residency.prompt_pool import (
    PATIENCE_S,
    apply,
    catalog,
    entry,
    find,
    held,
    in_memory,
    make,
    wait_until,
)


def with_previous(*tasks: str) -> dict[str, CatalogEntry]:
    """Tasks whose second version was promoted; the first can still be asked for."""
    return {task: entry(task, 2, others={1: f"{task}-1"}) for task in tasks}


def test_a_promotion_is_not_behind_a_backlog_of_new_tasks():
    residency, load = make(1000)
    apply(residency, catalog(z=1))
    with held(load, "a"):
        new = {f"n-{number}": 1 for number in range(200)}
        residency.apply(catalog(a=1, z=2, **new))
        wait_until(lambda: residency.state("z").version == 2)
        assert residency.num_served == 1, "the backlog waits for a"
    assert residency.wait_loaded(PATIENCE_S)
    assert residency.num_served == 202


class Runs:
    """Notes loads, and ends them when it is told to."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.gate = threading.Event()

    def __call__(self, load: Load) -> None:
        self.started.append(load.ref.task)
        assert self.gate.wait(PATIENCE_S)


def make_load(task: str, precedence: Precedence) -> Load:
    return Load(ref=PromptRef(task=task, version=1, digest=task), precedence=precedence, may_evict=False)


def test_each_kind_has_its_places_and_what_begins_to_matter_changes_over():
    runs = Runs()
    queue = LoadQueue(runs, 1)
    loads = [make_load(f"advance-{number}", Precedence.IN_ADVANCE) for number in range(4)]
    loads += [make_load(f"swap-{number}", Precedence.SWAP) for number in range(2)]
    for load in loads:
        queue.put(load)
    wait_until(lambda: len(runs.started) == 2)
    queue.raise_to(loads[3], Precedence.URGENT)
    wait_until(lambda: len(runs.started) == 3)
    assert sorted(runs.started) == ["advance-0", "advance-3", "swap-0"]
    runs.gate.set()
    for load in loads:
        assert load.future.result(PATIENCE_S) is None
    assert sorted(runs.started) == sorted(load.ref.task for load in loads), "each one once"


def test_a_load_that_breaks_is_told_to_waiting_requests_and_the_next_one_begins():
    def fail(load: Load) -> None:
        raise SystemExit(load.ref.task)

    queue = LoadQueue(fail, 1)
    loads = [make_load(f"a-{number}", Precedence.SWAP) for number in range(5)]
    for load in loads:
        queue.put(load)
    assert [str(load.future.exception(PATIENCE_S)) for load in loads] == [load.ref.task for load in loads]


def test_a_new_champion_takes_the_place_of_versions_that_are_not_needed():
    residency, _ = make(4)
    apply(residency, catalog(a=1, b=1))
    apply(residency, Catalog(entries=with_previous("a", "b")))
    assert residency.stats().num_resident == 4
    apply(residency, Catalog(entries={**with_previous("a", "b"), **catalog(c=1, d=1).entries}))
    assert in_memory(residency) == {"a", "b", "c", "d"}
    assert {residency.state(task).version for task in ("a", "b")} == {2}
    assert residency.num_served == 4


def test_what_made_way_for_a_promotion_comes_back_in_place_of_the_version_before():
    residency, _ = make(3)
    apply(residency, catalog(a=1, b=1, c=1))
    apply(residency, Catalog(entries={**catalog(b=1, c=1).entries, **with_previous("a")}))
    assert len(in_memory(residency)) == 2
    residency.refresh()
    assert residency.wait_loaded(PATIENCE_S)
    assert in_memory(residency) == {"a", "b", "c"}
    assert residency.state("a").version == 2


def test_a_promotion_takes_the_place_of_a_spare_version_first():
    residency, _ = make(3)
    apply(residency, catalog(a=1, b=1))
    apply(residency, Catalog(entries={**catalog(b=1).entries, **with_previous("a")}))
    find(residency, "a", version=1)
    apply(residency, Catalog(entries=with_previous("a", "b")))
    assert {residency.state(task).version for task in ("a", "b")} == {2}


def test_requests_for_an_old_version_and_champions_do_not_evict_each_other():
    residency, load = make(2)
    apply(residency, Catalog(entries={**catalog(b=1).entries, **with_previous("a")}))
    for _ in range(5):
        assert find(residency, "a", version=1).version == 1
        residency.refresh()
        assert residency.wait_loaded(PATIENCE_S)
    assert load.loads["a-1"] == 1


def test_a_champion_with_a_waiting_request_takes_the_place_of_a_spare_version():
    residency, _ = make(3)
    apply(residency, Catalog(entries={**catalog(b=1, c=1).entries, **with_previous("a")}))
    assert find(residency, "a", version=1).version == 1, "a request waits for it, so c or b went"
    [gone] = {"a", "b", "c"} - in_memory(residency)
    assert find(residency, gone).version == (2 if gone == "a" else 1)
    assert in_memory(residency) == {"a", "b", "c"}


def test_a_canary_that_is_not_there_holds_up_no_waiting_request():
    residency, load = make(2)
    tried = entry("a", 1, others={2: "a-2"}, canary=Canary(version=2, share=0.999))
    apply(residency, Catalog(entries={"a": tried, **catalog(b=1, c=1).entries}))
    assert in_memory(residency) == {"a", "b"}
    started = load.started["a-2"]
    with held(load, "a"):
        assert find(residency, "a", key="line-1").version == 1
        wait_until(lambda: load.started["a-2"] == started + 1)
        assert find(residency, "c").version == 1, "with one place of each kind"
    assert residency.wait_loaded(PATIENCE_S)
    assert find(residency, "a", key="line-1").version == 2


def test_all_champions_come_before_canaries_and_shadows():
    residency, _ = make(3)
    digests = {2: "a-2", 3: "a-3"}
    tried = entry("a", 1, others=digests, canary=Canary(version=2, share=0.5), shadow=3)
    apply(residency, Catalog(entries={"a": tried, **catalog(b=1, c=1).entries}))
    assert in_memory(residency) == {"a", "b", "c"}


def test_a_canary_and_a_shadow_are_not_spare():
    residency, load = make(3)
    digests = {2: "a-2", 3: "a-3"}
    tried = entry("a", 1, others=digests, canary=Canary(version=2, share=0.5), shadow=3)
    apply(residency, Catalog(entries={"a": tried}))
    apply(residency, Catalog(entries={"a": tried, **catalog(b=1).entries}))
    assert in_memory(residency) == {"a"}
    assert residency.stats().num_evictions == 0
    assert load.started["b-1"] == 1


SHADOWED = entry("a", 1, others={2: "a-2"}, shadow=2)


def test_a_background_request_takes_no_champions_place():
    residency, _ = make(3)
    apply(residency, Catalog(entries={"a": SHADOWED, **catalog(b=1, c=1).entries}))
    for _ in range(3):
        assert find(residency, "a", version=2, is_background=True).reason == "not_loaded"
        assert residency.wait_loaded(PATIENCE_S)
    assert in_memory(residency) == {"a", "b", "c"}
    assert residency.stats().num_evictions == 0


def test_a_background_request_does_not_wait_for_a_load():
    residency, load = make(10)
    with held(load, "a"):
        residency.apply(Catalog(entries={"a": SHADOWED}))
        found = find(residency, "a", version=2, is_background=True)
        assert (found.reason, "not waited for" in found.detail) == ("not_loaded", True)
    assert residency.wait_loaded(PATIENCE_S)
    assert find(residency, "a", version=2, is_background=True).version == 2


def test_a_shadow_that_gave_way_comes_back_when_there_is_room():
    residency, load = make(3)
    apply(residency, Catalog(entries={"a": SHADOWED, **catalog(b=1).entries}))
    for task in ("a", "b", "c"):
        apply(residency, Catalog(entries={"a": SHADOWED, **catalog(b=1, c=1).entries}))
        find(residency, task)
    assert in_memory(residency) == {"a", "b", "c"}
    apply(residency, Catalog(entries={"a": SHADOWED, **catalog(b=1).entries}))

    def is_back() -> bool:
        # The thread that loaded c may hold it for a moment more: the next look at the catalog finds the room.
        residency.refresh()
        assert residency.wait_loaded(PATIENCE_S)
        return isinstance(find(residency, "a", version=2, is_background=True), ServedVersion)

    wait_until(is_back)
    assert load.loads["a-2"] == 2


def test_what_found_no_room_beside_a_request_is_loaded_once_that_is_answered():
    residency, _ = make(1)
    apply(residency, catalog(a=1))
    asked = find(residency, "a")
    apply(residency, catalog(b=1))
    assert in_memory(residency) == set()
    del asked

    def is_loaded() -> bool:
        residency.refresh()
        assert residency.wait_loaded(PATIENCE_S)
        return in_memory(residency) == {"b"}

    wait_until(is_loaded)


def test_a_prompt_that_never_fits_empties_nothing_and_is_not_tried_again():
    residency, load = make(3, retry_s=0.0)
    load.num_bytes = lambda ref: 5 if ref.task == "big" else 1
    apply(residency, catalog(a=1, big=1))
    for _ in range(3):
        assert "5 bytes do not fit into 3" in find(residency, "big").detail
    assert load.started["big-1"] == 1
    apply(residency, catalog(a=1, b=1, big=1, c=1))
    assert in_memory(residency) == {"a", "b", "c"}, "memory is not taken for full"
    find(residency, "big")
    assert residency.stats().num_evictions == 0
    assert residency.num_problems == 1


def test_a_prompt_that_does_not_fit_beside_what_is_pinned_empties_nothing():
    residency, load = make(4, pinned=("line-*",))
    load.num_bytes = lambda ref: {"line-1": 2, "big": 3}.get(ref.task, 1)
    apply(residency, catalog(**{"line-1": 1, "a": 1, "b": 1}))
    apply(residency, catalog(**{"line-1": 1, "a": 1, "b": 1, "big": 1}))
    assert "do not fit" in find(residency, "big").detail
    assert in_memory(residency) == {"line-1", "a", "b"}


def test_only_what_differs_is_gone_through(monkeypatch: pytest.MonkeyPatch):
    residency, _ = make(1000)
    tasks = {f"t-{number}": 1 for number in range(300)}
    apply(residency, catalog(**tasks))
    taken: list[str] = []
    looked_at: list[str] = []
    take, current = Champions.take, Champions.current

    def note_take(champions: Champions, task: str, found: CatalogEntry | None) -> object:
        taken.append(task)
        return take(champions, task, found)

    def note_current(champions: Champions, task: str) -> PromptRef | None:
        looked_at.append(task)
        return current(champions, task)

    monkeypatch.setattr(Champions, "take", note_take)
    monkeypatch.setattr(Champions, "current", note_current)
    del tasks["t-0"]
    apply(residency, catalog(**{**tasks, "t-7": 2, "new": 1}))
    assert taken == ["new", "t-0", "t-7"]
    assert (residency.num_served, residency.num_problems) == (300, 0)
    assert set(looked_at) == {"new", "t-0", "t-7"}
