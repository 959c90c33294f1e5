"""A decision rule is shown, chosen on held-out answers, set by one change, and taken back."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import RegistryError, StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.thresholds import Thresholds, Wishes
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.prompt_store import PromptStore
from ship.decision.rule import Costs, DecisionRule
from ship.errors import ConfigError
from tests.unit.orchestrator.registry.factory import LABELS, NOW_S, World

if TYPE_CHECKING:
    from collections.abc import Mapping

RECALL = Wishes(recalls={"scratch": 0.98})


@pytest.fixture
def world() -> World:
    """The first of two versions of bolts serves."""
    world = World()
    for number in (1, 2):
        world.add_tuned(number)
    world.rollouts().promote("bolts", 1)
    CatalogWriter(world.fresh_registry(), world.store, world.rollouts()).update()
    return world


def thresholds(world: World, by: str = "anna") -> Thresholds:
    """As a new process has them."""
    store = PromptStore(world.objects.client())
    return Thresholds(world.fresh_registry(), store, world.rollouts(by), clock=lambda: NOW_S)


def test_without_a_rule_set_the_artifacts_own_one_stands(world: World) -> None:
    first = thresholds(world).standing("bolts")
    assert (first.version, first.digest, first.labels) == (1, None, LABELS)
    assert first.rule == DecisionRule(temperature=3.0)
    assert thresholds(world).standing("bolts", 2).rule == DecisionRule(temperature=4.0)


def test_a_chosen_rule_keeps_its_recall_and_says_what_it_costs(world: World) -> None:
    found = thresholds(world)
    rule = found.choose(found.standing("bolts"), RECALL)
    assert rule.recalls == {"scratch": 0.98}
    assert rule.thresholds.keys() == {"scratch"}
    assert rule.expected["num_images"] == 600
    assert rule.expected["cross_fitted"]
    caught = rule.expected["caught"]["scratch"]
    assert caught["share"] >= 0.98
    assert rule.expected["recall"]["scratch"]["of"] == 200
    assert rule.expected["unsure"]["share"] > 0.0
    assert "false_rejects" in rule.expected, "the good parts are known by their name"


def test_a_rule_of_balanced_scores_is_chosen_as_one_again(world: World) -> None:
    found = thresholds(world)
    standing = found.standing("bolts")
    shares = {"good": 0.95, "scratch": 0.04, "dent": 0.01}
    balanced = replace(standing, own=replace(standing.own, frequencies=shares))
    rules = [
        found.choose(balanced, RECALL),
        *found.choose_each(balanced, [Wishes(costs={"escape": 5.0})], found.held_out(balanced)),
    ]
    for rule in rules:
        # 200 held-out pictures of each class.
        assert rule.frequencies == {label: pytest.approx(1 / 3, abs=1e-6) for label in LABELS}
    assert found.choose(standing, RECALL).frequencies is None


def test_a_rule_is_stored_named_by_the_rollout_and_followed_at_once(world: World) -> None:
    found = thresholds(world)
    standing = found.standing("bolts")
    after = found.set(standing, found.choose(standing, RECALL))
    assert after.digest is not None
    stored = world.store.rules.read(after.digest)
    assert (stored.task, stored.artifact, stored.by, stored.time_s) == (
        "bolts",
        standing.artifact,
        "anna",
        NOW_S,
    )
    rollout, _ = world.store.read_rollout("bolts")
    assert (rollout.change.kind, rollout.rules) == ("threshold", {standing.artifact: after.digest})
    catalog, _ = world.store.read_catalog()
    assert catalog.entries["bolts"].rules == {standing.artifact: after.digest}
    assert thresholds(world).standing("bolts") == after
    newest = next(iter(AuditLog(world.store).newest())).record
    name = f"rule of {standing.artifact}"
    assert (newest.action, newest.by, newest.before.get(name), newest.after.get(name)) == (
        "threshold",
        "anna",
        None,
        after.digest,
    )


def test_what_is_not_named_stays_and_a_reset_goes_back(world: World) -> None:
    steps: list[tuple[Wishes, Mapping[str, float], float, Costs | None]] = [
        (RECALL, {"scratch": 0.98}, 0.0, None),
        (Wishes(min_confidence=0.5), {"scratch": 0.98}, 0.5, None),
        (
            Wishes(costs={"escape": 50.0}, recalls={"dent": 0.9}),
            {"scratch": 0.98, "dent": 0.9},
            0.5,
            Costs(good="good", escape=50.0),
        ),
        (Wishes(recalls={"scratch": 0.0}), {"dent": 0.9}, 0.5, Costs(good="good", escape=50.0)),
        (Wishes(recalls={"scratch": 0.9}, from_own=True), {"scratch": 0.9}, 0.0, None),
    ]
    for wishes, recalls, min_confidence, costs in steps:
        found = thresholds(world)
        standing = found.standing("bolts")
        after = found.set(standing, found.choose(standing, wishes))
        assert after.rule is not None
        assert (after.rule.recalls, after.rule.min_confidence) == (recalls, min_confidence)
        assert after.rule.costs == costs
    found = thresholds(world)
    reset = found.set(found.standing("bolts"), None)
    assert (reset.digest, reset.rule) == (None, DecisionRule(temperature=3.0))
    assert world.store.read_rollout("bolts")[0].rules == {}


def test_the_limit_of_the_distance_is_chosen_anew_only_if_its_rate_is_named(world: World) -> None:
    found = thresholds(world)
    standing = found.standing("bolts")
    loose = found.choose(standing, Wishes(false_alarm_rate=0.1))
    assert loose.max_distance == pytest.approx(1.541, abs=0.002)
    after = found.set(standing, loose)
    kept = found.choose(after, Wishes(min_confidence=0.5))
    assert kept.max_distance == loose.max_distance
    assert found.choose(standing, RECALL).max_distance == pytest.approx(1.594, abs=0.002)


def test_a_change_by_another_person_in_between_is_not_overwritten(world: World) -> None:
    ours, theirs = thresholds(world), thresholds(world, by="ben")
    before = ours.standing("bolts")
    theirs.set(theirs.standing("bolts"), DecisionRule(min_confidence=0.9))
    with pytest.raises(RegistryError, match="was changed meanwhile; look at its rule with `ship threshold"):
        ours.set(before, ours.choose(before, RECALL))
    assert thresholds(world).standing("bolts").rule == DecisionRule(min_confidence=0.9)


def test_costs_need_to_know_the_good_parts() -> None:
    world = World()
    world.add_tuned(1, labels=("fine", "scratch"))
    found = thresholds(world)
    standing = found.standing("bolts", 1)
    with pytest.raises(ConfigError, match="name their label with --good, one of fine, scratch"):
        found.choose(standing, Wishes(costs={"escape": 2.0}))
    rule = found.choose(standing, Wishes(costs={"escape": 2.0}, good="fine"))
    assert rule.costs == Costs(good="fine", escape=2.0)
    with pytest.raises(ConfigError, match="unknown label 'ok'"):
        found.choose(standing, Wishes(costs={"escape": 2.0}, good="ok"))


def test_what_cannot_be_promised_is_refused_with_what_can(world: World) -> None:
    found = thresholds(world)
    with pytest.raises(ConfigError, match=r"cannot be promised with 200 held-out images.*at most 0\.98"):
        found.choose(found.standing("bolts"), Wishes(recalls={"scratch": 0.999}))


def test_an_artifact_of_an_earlier_version_says_that_it_has_to_be_tuned_again() -> None:
    world = World()
    world.add_tuned(1, keeps_held_out=False)
    found = thresholds(world)
    with pytest.raises(RegistryError, match=r"keeps no answers about held-out images.*Tune it again"):
        found.choose(found.standing("bolts", 1), RECALL)


def test_a_task_without_a_champion_names_its_versions() -> None:
    world = World()
    world.add_tuned(1)
    with pytest.raises(RegistryError, match="name a version with --version: 1"):
        thresholds(world).standing("bolts")


def test_a_rule_that_is_broken_can_be_taken_back(world: World) -> None:
    found = thresholds(world)
    after = found.set(found.standing("bolts"), DecisionRule(min_confidence=0.9))
    world.objects.delete(f"rules/{after.digest}.json")
    found = thresholds(world)
    with pytest.raises(StoreError, match="--version 1 --reset` goes back"):
        found.standing("bolts")
    broken = found.standing("bolts", may_be_broken=True)
    assert (broken.digest, broken.rule) == (after.digest, None)
    assert found.set(broken, None).rule == DecisionRule(temperature=3.0)
    assert thresholds(world).standing("bolts").digest is None


def test_a_rule_that_is_set_for_a_long_reason_is_read_again(world: World) -> None:
    author = Author(by="anna", host="line-pc", reason="r" * 2001)
    found = Thresholds(world.registry, world.store, Rollouts(world.registry, world.store, author))
    standing = found.standing("bolts")
    chosen = found.set(standing, DecisionRule(min_confidence=0.9))
    assert found.standing("bolts").stored == chosen.stored
