"""The catalog names the decision rules of what is served, as the rollouts do."""

import itertools
from dataclasses import replace

import pytest

from orchestrator.registry.catalog_writer import CatalogChange, CatalogWriter, follow_rollout, serve_now
from orchestrator.registry.mirror import MAX_TRIES
from orchestrator.registry.thresholds import set_rule
from orchestrator.store.documents.catalog import CatalogEntry, IdleTask
from orchestrator.store.objects.protocol import StoredObject
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


def test_a_late_writer_follows_what_was_set_meanwhile(world: World) -> None:
    """As one whose request was answered 503 and tried again for a minute."""
    add_champions(world, "bolts")
    make_catalog_writer(world).update()
    artifact = make_key("bolts-1")
    late = set_rule(world.rollouts(), "bolts", 1, artifact, make_key("old"), instead_of=None)
    follow_rule(world, "new", instead_of="old")
    assert follow_rollout(PromptStore(world.objects.client()), late)
    assert entry_of(world, "bolts").rules == {artifact: make_key("new")}


def test_a_late_promotion_follows_a_rollback_that_is_told_already(world: World) -> None:
    add_champions(world, "bolts")
    make_catalog_writer(world).update()
    world.rollouts().promote("bolts", world.add("bolts", 2))
    promoted, _ = world.store.read_rollout("bolts")
    world.rollouts("ben").rollback("bolts")
    assert serve_now(PromptStore(world.objects.client()), "bolts").version == 1
    assert follow_rollout(PromptStore(world.objects.client()), promoted)
    assert entry_of(world, "bolts").version == 1


def test_a_rollout_that_changes_all_the_time_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    add_champions(world, "bolts")
    make_catalog_writer(world).update()
    artifact, names = make_key("bolts-1"), itertools.count()
    objects = world.objects.client()
    writes_catalog = objects.put

    def put(key: str, data: bytes, *, if_match: str | None = None) -> str:
        etag = writes_catalog(key, data, if_match=if_match)
        rules = dict(world.store.read_rollout("bolts")[0].rules)
        other = make_key(f"rule-{next(names)}")
        set_rule(world.rollouts(), "bolts", 1, artifact, other, instead_of=rules[artifact])
        return etag

    objects.put = put
    rollout = set_rule(world.rollouts(), "bolts", 1, artifact, make_key("first"), instead_of=None)
    assert not follow_rollout(PromptStore(objects), rollout)
    assert next(names) == MAX_TRIES
    assert "brings the catalog in line" in caplog.text


def test_what_a_late_writer_leaves_in_the_catalog_does_not_stay(world: World) -> None:
    """A writer that was ended between its catalog and its last look leaves an older rollout there."""
    add_champions(world, "bolts", "nuts")
    objects, read = world.objects.client(), list[str]()
    get = objects.get

    def counted(key: str, **options: int) -> StoredObject:
        read.append(key)
        return get(key, **options)

    objects.get = counted
    poller = CatalogWriter(world.fresh_registry(), PromptStore(objects), world.rollouts(by="poller"))
    poller.update(looks_at_rollouts=True)
    follow_rule(world, "rule")
    # The newest one is read at each look: it may be written again in the same second.
    world.rollouts().promote("nuts", world.add("nuts", 2))
    poller.update(looks_at_rollouts=True)
    catalog, etag = world.store.read_catalog()
    stale = replace(catalog.entries["bolts"], rules={make_key("bolts-1"): make_key("older")})
    world.store.write_catalog(replace(catalog, entries={**catalog.entries, "bolts": stale}), etag)

    # A look that reads no rollouts does not forget it.
    poller.update()
    assert entry_of(world, "bolts") == stale
    read.clear()
    assert poller.update(looks_at_rollouts=True).is_written
    assert "rollouts/bolts.json" in read
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}
    read.clear()
    assert poller.update(looks_at_rollouts=True) == CatalogChange()
    assert "rollouts/bolts.json" not in read
