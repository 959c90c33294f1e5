"""Tasks without a champion: those that wait, whose versions answer by number, and those that were retired."""

import pytest

from orchestrator.serve.engine_api import Refusal
from orchestrator.store.documents.catalog import Catalog, IdleTask
from ship.errors import ArtifactError
from tests.unit.orchestrator.serve.residency.prompt_pool import apply, catalog, find, make


def idle(served: Catalog, **tasks: IdleTask) -> Catalog:
    """A catalog with registered tasks without a champion."""
    return Catalog(entries=served.entries, idle=tasks)


WAITING = IdleTask(versions={1: "gears-1", 2: "gears-2"})


def test_a_task_that_waits_is_told_from_one_that_is_not_known() -> None:
    residency, load = make(100)
    apply(residency, idle(catalog(bolts=1), gears=WAITING, caps=IdleTask(), welds=IdleTask(is_retired=True)))
    waiting, without = find(residency, "gears"), find(residency, "caps")
    assert waiting == residency.idle_reason("gears")
    assert waiting == Refusal(
        reason="no_champion",
        detail="task 'gears' is registered, but none of its versions serves yet; a request may name one: "
        "1, 2",
    )
    assert (without.reason, "a request may name" in without.detail) == ("no_champion", False)
    for version in (None, 1):
        assert find(residency, "welds", version=version).reason == "retired"
    assert find(residency, "nuts").reason == "unknown_task"
    assert residency.idle_reason("nuts") is None
    assert residency.idle_reason("bolts") is None
    assert residency.state("gears") is None
    assert [state.task for state in residency.states()] == ["bolts"]
    assert load.loads == {"bolts-1": 1}, "nothing of them is loaded in advance"


def test_a_version_of_a_task_that_waits_answers_by_its_number() -> None:
    residency, load = make(100)
    apply(residency, idle(catalog(bolts=1), gears=WAITING))
    for _ in range(2):
        assert find(residency, "gears", version=2).digest == "gears-2"
    assert load.loads == {"bolts-1": 1, "gears-2": 1}, "it stays in memory"
    refusal = find(residency, "gears", version=3)
    assert refusal.reason == "other_version"
    assert refusal.detail.endswith("cannot be had; these can: 1, 2")
    assert find(residency, "gears", is_background=True).reason == "no_champion"
    load.errors["gears-1"] = ArtifactError("its scores are off")
    assert find(residency, "gears", version=1).reason == "not_loaded"
    assert (residency.num_served, residency.num_problems) == (1, 0)


def test_a_promotion_makes_the_version_in_memory_the_champion() -> None:
    residency, load = make(100)
    apply(residency, idle(catalog(), gears=WAITING))
    find(residency, "gears", version=2)
    apply(residency, catalog(gears=2))
    assert find(residency, "gears").version == 2
    assert load.loads == {"gears-2": 1}
    assert residency.num_served == 1


def test_versions_that_lose_their_alias_leave_memory() -> None:
    residency, _ = make(100)
    apply(residency, idle(catalog(), gears=WAITING))
    find(residency, "gears", version=2)
    assert residency.stats().num_resident == 1
    apply(residency, idle(catalog(), gears=IdleTask(is_retired=True)))
    assert residency.stats().num_resident == 0


def test_a_retired_task_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    residency, _ = make(100)
    apply(residency, catalog(bolts=1, nuts=1, gears=1))
    apply(residency, idle(catalog(bolts=1), nuts=IdleTask(is_retired=True), gears=WAITING))
    assert residency.num_lost == 1
    assert "1 tasks left the catalog: gears" in caplog.text
    assert find(residency, "nuts").reason == "retired"
    assert residency.stats().num_resident == 2, "gears' version may still be asked for by its number"
    apply(residency, idle(catalog(bolts=1), nuts=IdleTask(is_retired=True), gears=IdleTask(is_retired=True)))
    assert residency.stats().num_resident == 1
    assert residency.num_lost == 0
    apply(residency, catalog(bolts=1, nuts=1))
    assert find(residency, "nuts").version == 1
    assert residency.num_lost == 0
