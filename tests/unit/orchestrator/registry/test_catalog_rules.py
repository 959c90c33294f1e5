"""The catalog names the decision rules of what is served, as the rollouts do."""

import pytest

from orchestrator.registry.catalog_writer import CatalogChange, follow_rollout
from orchestrator.registry.thresholds import set_rule
from orchestrator.store.documents.catalog import CatalogEntry, IdleTask
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import (
    World,
    add_champions,
    idle,
    make_catalog_writer,
)
from tests.unit.orchestrator.store.factory import make_key


@pytest.fixture
def world() -> World:
    return World()


def follow_rule(world: World, name: str | None, *, instead_of: str | None = None) -> None:
    version = world.aliases()["champion"]
    digests = [None if rule is None else make_key(rule) for rule in (name, instead_of)]
    artifact = make_key(f"bolts-{version}")
    rollout = set_rule(world.rollouts(), "bolts", version, artifact, digests[0], instead_of=digests[1])
    assert follow_rollout(PromptStore(world.objects.client()), rollout)


def entry_of(world: World, task: str) -> CatalogEntry:
    return world.store.read_catalog()[0].entries[task]


def test_a_rule_is_followed_at_once_and_the_poller_leaves_it(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    poller = make_catalog_writer(world)
    poller.update()
    follow_rule(world, "rule")
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}
    assert entry_of(world, "nuts").rules == {}
    calls = len(world.mlflow.calls)
    assert poller.update() == CatalogChange()
    assert world.mlflow.calls[calls:] == ["get_experiment_by_name", "search_registered_models"]
    assert poller.update(looks_at_rollouts=True) == CatalogChange()
    follow_rule(world, None, instead_of="rule")
    assert entry_of(world, "bolts") == CatalogEntry(version=1, digest=make_key("bolts-1"))


def test_a_rule_whose_command_was_ended_is_followed_by_the_next_look_at_rollouts(world: World) -> None:
    add_champions(world, "bolts")
    poller = make_catalog_writer(world)
    poller.update(looks_at_rollouts=True)
    set_rule(world.rollouts(), "bolts", 1, make_key("bolts-1"), make_key("rule"), instead_of=None)
    assert poller.update(looks_at_rollouts=True).is_written
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}


def test_a_promotion_and_a_rollback_bring_each_version_its_own_rule(world: World) -> None:
    add_champions(world, "bolts")
    poller = make_catalog_writer(world)
    poller.update()
    follow_rule(world, "first")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    poller.update()
    assert entry_of(world, "bolts").version == 2
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("first")}
    follow_rule(world, "second")
    world.rollouts().rollback("bolts")
    assert poller.update().is_written
    both = {make_key("bolts-1"): make_key("first"), make_key("bolts-2"): make_key("second")}
    assert (entry_of(world, "bolts").version, entry_of(world, "bolts").rules) == (1, both)
    assert poller.update() == CatalogChange()


def test_a_rule_of_a_task_that_does_not_serve_yet_waits_for_its_entry(world: World) -> None:
    add_champions(world, "bolts")
    rollout = set_rule(world.rollouts(), "bolts", 1, make_key("bolts-1"), make_key("rule"), instead_of=None)
    store = PromptStore(world.objects.client())
    assert not follow_rollout(store, rollout), "there is no catalog"
    make_catalog_writer(world).update()
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}


def test_two_writers_of_the_catalog_lose_no_rule(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    make_catalog_writer(world).update()
    objects = world.objects.client()
    raced: list[str] = []

    def race(when: str) -> None:
        if when == "before" and len(raced) == 0:
            raced.append("nuts")
            other = PromptStore(world.objects.client())
            rollout = set_rule(
                world.rollouts(), "nuts", 1, make_key("nuts-1"), make_key("theirs"), instead_of=None
            )
            assert follow_rollout(other, rollout)

    rollout = set_rule(world.rollouts(), "bolts", 1, make_key("bolts-1"), make_key("ours"), instead_of=None)
    store = PromptStore(objects)
    store.read_catalog()
    objects.hook = race
    assert follow_rollout(store, rollout)
    assert [entry_of(world, task).rules for task in ("bolts", "nuts")] == [
        {make_key("bolts-1"): make_key("ours")},
        {make_key("nuts-1"): make_key("theirs")},
    ]


def test_a_lost_rollout_keeps_the_rules_of_what_serves(world: World) -> None:
    add_champions(world, "bolts")
    make_catalog_writer(world).update()
    follow_rule(world, "rule")
    world.objects.delete("rollouts/bolts.json")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    make_catalog_writer(world).update()
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}
    world.rollouts().rollback("bolts")
    rollout, _ = world.store.read_rollout("bolts")
    assert (rollout.version("champion"), rollout.rules) == (1, {make_key("bolts-1"): make_key("rule")})


def test_a_version_that_waits_takes_its_rule_into_the_catalog(world: World) -> None:
    add_champions(world, "nuts")
    world.add("bolts")
    world.move_by_hand("challenger", 1)
    poller = make_catalog_writer(world)
    poller.update()
    artifact, rule = make_key("bolts-1"), make_key("rule")
    rollout = set_rule(world.rollouts(), "bolts", 1, artifact, rule, instead_of=None)
    assert follow_rollout(PromptStore(world.objects.client()), rollout)
    assert idle(world) == {"bolts": IdleTask(versions={1: artifact}, rules={artifact: rule})}
    assert poller.update() == CatalogChange()
    world.rollouts().promote("bolts", 1)
    poller.update()
    assert entry_of(world, "bolts").rules == {artifact: rule}
    world.rollouts().retire("bolts")
    poller.update()
    assert idle(world) == {"bolts": IdleTask(is_retired=True)}
    world.rollouts().promote("bolts")
    poller.update()
    assert entry_of(world, "bolts").rules == {artifact: rule}, "what comes back has its rule"
