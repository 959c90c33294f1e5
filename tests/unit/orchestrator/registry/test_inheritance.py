"""A rule that was set for the champion is kept to by the version that takes its place, or that waits."""

import pytest

from orchestrator.manifest.floors import Floors
from orchestrator.registry.record_writer import RecordWriter, Redecision
from orchestrator.registry.thresholds import Standing, Thresholds, Wishes
from orchestrator.registry.versions import VERDICT_TAG
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.store.factory import make_key


def thresholds(world: World) -> Thresholds:
    registry = world.fresh_registry()
    return Thresholds(registry, world.store, world.rollouts("anna"), clock=lambda: world.now_s)


def promise(world: World, version: int, **wishes: object) -> Standing:
    made = thresholds(world)
    standing = made.standing("bolts", version)
    return made.set(standing, made.choose(standing, Wishes(**wishes)))


def decide(world: World, number: int) -> Redecision:
    return RecordWriter(world.fresh_registry(), world.store).decide_again(
        "bolts", make_key(f"tuned-{number}"), Floors()
    )


@pytest.fixture
def world() -> World:
    """The champion of bolts promises to find 0.9 of the bad ones."""
    world = World()
    world.add_tuned(1, labels=("good", "bad"))
    world.rollouts().promote("bolts", 1)
    promise(world, 1, recalls={"bad": 0.8}, min_confidence=0.6)
    return world


def test_the_next_champion_promises_the_same_by_its_own_held_out_answers(world: World) -> None:
    digest = world.add_tuned(2, labels=("good", "bad"))
    found = decide(world, 2)
    assert found.promoted
    assert "It keeps to the rule that was set for the champion." in found.reason
    standing = thresholds(world).standing("bolts")
    assert (standing.version, standing.artifact) == (2, digest)
    assert (standing.rule.recalls, standing.rule.min_confidence) == ({"bad": 0.8}, 0.6)
    assert (standing.stored.artifact, standing.stored.task) == (digest, "bolts")
    assert standing.stored.reason == "as anna set it for the champion before"
    # The promotion and its rule are one change.
    assert next(iter(AuditLog(world.store).newest())).record.action == "gate"


@pytest.mark.parametrize(
    ("tuned", "problem"),
    [
        ({"labels": ("good", "broken")}, "unknown label 'bad'"),
        ({"labels": ("good", "bad"), "keeps_held_out": False}, "keeps no answers about held-out images"),
    ],
)
def test_one_that_cannot_keep_to_it_waits(world: World, tuned: dict[str, object], problem: str) -> None:
    world.add_tuned(2, **tuned)
    found = decide(world, 2)
    assert not found.promoted
    assert problem in found.reason
    assert "`ship promote bolts 2` serves it" in found.reason
    assert world.aliases() == {"champion": 1, "challenger": 2}
    assert '"gate": "promise"' in world.registry.version("bolts", 2).tags[VERDICT_TAG]


def test_a_rule_that_was_set_for_it_stays(world: World) -> None:
    digest = world.add_tuned(2, labels=("good", "bad"))
    own = promise(world, 2, min_confidence=0.7)
    assert decide(world, 2).promoted
    assert world.rollouts().read("bolts").rules[digest] == own.digest


def test_one_that_waits_for_an_approval_keeps_to_it_as_well(world: World) -> None:
    author = Author(by="anna", host="line-pc", reason="")
    Approvals(world.store, AuditLog(world.store)).follow_manifest({"bolts": True}, author)
    digest = world.add_tuned(2, labels=("good", "bad"))
    assert not decide(world, 2).promoted
    assert digest in world.rollouts().read("bolts").rules


def test_one_of_a_retired_task_keeps_to_it_once_a_person_brings_it_back(world: World) -> None:
    digest = world.add_tuned(2, labels=("good", "bad"))
    world.rollouts().retire("bolts")
    assert not decide(world, 2).promoted
    world.rollouts().promote("bolts", 2)
    assert thresholds(world).standing("bolts").rule.recalls == {"bad": 0.8}
    assert digest in world.rollouts().read("bolts").rules


def test_a_rule_that_cannot_be_read_is_no_reason_to_drop_it(world: World) -> None:
    [rule] = world.rollouts().read("bolts").rules.values()
    world.objects.put(f"rules/{rule}.json", b"damaged")
    world.add_tuned(2, labels=("good", "bad"))
    found = decide(world, 2)
    assert (found.promoted, "expected sha256" in found.reason) == (False, True)


def test_without_a_rule_that_was_set_the_versions_own_one_decides() -> None:
    world = World()
    for number in (1, 2):
        world.add_tuned(number)
    world.rollouts().promote("bolts", 1)
    assert decide(world, 2).promoted
    assert world.rollouts().read("bolts").rules == {}
