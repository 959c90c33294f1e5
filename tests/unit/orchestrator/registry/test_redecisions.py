"""The gate decides again on a version that is in the store while another one serves."""

import pytest

from orchestrator.errors import RegistryError
from orchestrator.manifest.floors import Floors
from orchestrator.registry.record_writer import RecordWriter, Redecision
from orchestrator.registry.versions import GATE_TAG, REFUSED_TAG
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.store.factory import make_key

FIRST = make_key("tuned-1")


@pytest.fixture
def world() -> World:
    """Two versions of bolts, of which the second serves."""
    world = World()
    for number in (1, 2):
        world.add_tuned(number)
        world.rollouts().promote("bolts", number)
    return world


def decide_again(world: World, key: str = FIRST, floors: Floors | None = None) -> Redecision:
    return RecordWriter(world.fresh_registry(), world.store).decide_again("bolts", key, floors or Floors())


def test_one_that_passes_serves_again(world: World) -> None:
    found = decide_again(world)
    assert (found.task, found.version, found.promoted) == ("bolts", 1, True)
    assert "ties with today's champion" in found.reason
    assert world.aliases() == {"champion": 1, "previous": 2}
    rollout = world.rollouts().read("bolts")
    assert (rollout.change.kind, rollout.change.reason) == ("gate", found.reason)
    tags = world.registry.version("bolts", 1).tags
    assert (tags[GATE_TAG], tags[REFUSED_TAG]) == ("champion", "false")
    assert next(iter(AuditLog(world.store).newest())).record.action == "gate"


def test_one_that_the_gate_refuses_is_told_with_its_reason(world: World) -> None:
    found = decide_again(world, floors=Floors(accuracy=0.95))
    assert not found.promoted
    assert "It does not reach the task's floors: accuracy 0.9000" in found.reason
    assert world.aliases() == {"champion": 2, "previous": 1}
    assert world.registry.version("bolts", 1).tags[REFUSED_TAG] == "true"
    assert next(iter(AuditLog(world.store).newest())).record.reason == found.reason


def test_where_the_task_needs_an_approval_it_waits(world: World) -> None:
    author = Author(by="anna", host="line-pc", reason="")
    Approvals(world.store, AuditLog(world.store)).follow_manifest({"bolts": True}, author)
    found = decide_again(world)
    assert (found.promoted, "`ship approve bolts`" in found.reason) == (False, True)
    assert world.aliases()["champion"] == 2


def test_a_retired_task_stays_retired(world: World) -> None:
    world.rollouts().retire("bolts")
    found = decide_again(world)
    assert (found.promoted, "`ship promote bolts 1` brings it back" in found.reason) == (False, True)
    assert "champion" not in world.aliases()


def test_what_is_no_version_yet_is_refused(world: World) -> None:
    with pytest.raises(RegistryError, match="no version of it yet"):
        decide_again(world, make_key("tuned-9"))
