"""The catalog says what the rollouts say, is written when that changes, and has one owner."""

from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from orchestrator.errors import ObjectConflict
from orchestrator.registry.catalog_writer import CatalogChange, CatalogWriter, follow_rollout, make_entry
from orchestrator.registry.ownership import ForeignRegistryError, adopt
from orchestrator.registry.session import RegistryDown, RegistryMissing
from orchestrator.registry.thresholds import set_rule
from orchestrator.registry.versions import read_share
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry, IdleTask
from orchestrator.store.documents.rollout import Aliases
from orchestrator.store.objects.protocol import StoredObject
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import MemoryObjects, World
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry
from tests.unit.orchestrator.store.factory import make_key

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def world() -> World:
    return World()


def writer(world: World) -> CatalogWriter:
    return CatalogWriter(
        world.fresh_registry(), PromptStore(world.objects.client()), world.rollouts(by="poller")
    )


def add_champions(world: World, *tasks: str) -> None:
    for task in tasks:
        world.rollouts().promote(task, world.add(task))


def served(world: World) -> dict[str, int]:
    found = world.store.read_catalog()
    assert found is not None
    return {task: entry.version for task, entry in found[0].entries.items()}


def test_champions_become_the_catalog_of_the_registry(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    world.add("gears")
    assert writer(world).update() == CatalogChange(is_written=True)
    catalog, _ = world.store.read_catalog()
    assert catalog.registry == world.registry.session.find_identity()
    assert catalog.entries == {
        task: CatalogEntry(version=1, digest=make_key(f"{task}-1")) for task in ("bolts", "nuts")
    }


def test_the_catalog_says_which_backbone_each_version_belongs_to(world: World) -> None:
    small, large = make_key("small"), make_key("large")
    for task, backbone in (("bolts", small), ("nuts", small), ("gears", large), ("caps", None)):
        world.rollouts().promote(task, world.add(task, backbone=backbone), force=True)
    poller = writer(world)
    poller.update()
    catalog, _ = world.store.read_catalog()
    expected = {"bolts-1": small, "nuts-1": small, "gears-1": large, "caps-1": None}
    assert {text: catalog.backbone_of(make_key(text)) for text in expected} == expected

    world.rollouts().promote("bolts", world.add("bolts", 2, backbone=large))
    assert poller.update().is_written
    catalog, _ = world.store.read_catalog()
    assert catalog.backbone_of(make_key("bolts-2")) == large


def test_a_catalog_without_backbones_gets_them_at_the_next_look(world: World) -> None:
    """One that an earlier version wrote."""
    world.rollouts().promote("bolts", world.add("bolts", backbone=A))
    writer(world).update()
    catalog, etag = world.store.read_catalog()
    world.store.write_catalog(replace(catalog, backbone=None), if_match=etag)
    assert writer(world).update().is_written
    assert world.store.read_catalog()[0].backbone == A


def test_a_rollout_that_is_followed_at_once_keeps_the_backbones(world: World) -> None:
    world.rollouts().promote("bolts", world.add("bolts", backbone=A))
    writer(world).update()
    world.rollouts().promote("bolts", world.add("bolts", 2, backbone=B), force=True)
    rollout, _ = world.store.read_rollout("bolts")
    assert follow_rollout(world.store, rollout)
    catalog, _ = world.store.read_catalog()
    assert catalog.backbone_of(make_key("bolts-1")) == A
    assert catalog.backbone_of(make_key("bolts-2")) is None, "the poller asks the registry for it"


def test_a_registry_without_champions_gives_an_empty_catalog(world: World) -> None:
    assert writer(world).update().is_written
    assert served(world) == {}


def test_nothing_is_written_and_no_rollout_is_read_while_nothing_changes(world: World) -> None:
    add_champions(world, "bolts")
    poller = writer(world)
    poller.update()
    before, calls = dict(world.objects.stored), len(world.mlflow.calls)
    assert poller.update() == CatalogChange()
    assert world.objects.stored == before
    assert world.mlflow.calls[calls:] == ["get_experiment_by_name", "search_registered_models"]


def test_a_promotion_is_followed(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    poller = writer(world)
    poller.update()
    world.rollouts().promote("bolts", world.add("bolts", 2))
    assert poller.update().is_written
    assert served(world) == {"bolts": 2, "nuts": 1}


def test_a_command_that_was_ended_before_mlflow_followed_is_followed_all_the_same(world: World) -> None:
    add_champions(world, "bolts")
    world.add("bolts", 2)
    poller = writer(world)
    poller.update(looks_at_rollouts=True)

    def down(name: str) -> None:
        if name.startswith(("set_", "delete_")):
            raise MlflowException("down")

    world.mlflow.before = down
    world.rollouts().promote("bolts", 2)
    world.mlflow.before = lambda _: None
    assert world.aliases()["champion"] == 1
    assert poller.update(looks_at_rollouts=True).is_written
    assert served(world) == {"bolts": 2}
    assert world.aliases() == {"champion": 2, "previous": 1}, "and MLflow is brought in line"


def test_without_mlflow_the_rollouts_are_followed(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    poller = writer(world)
    poller.update(looks_at_rollouts=True)

    def down(_: str) -> None:
        raise MlflowException("down")

    world.mlflow.before = down
    world.rollouts().rollback("bolts")
    for _ in range(2):
        with pytest.raises(RegistryDown):
            poller.update()
        assert served(world) == {"bolts": 1, "nuts": 1}
    world.mlflow.before = lambda _: None
    poller.update()
    assert served(world) == {"bolts": 1, "nuts": 1}


def test_a_move_in_mlflows_page_is_served_and_noted(world: World) -> None:
    add_champions(world, "bolts")
    world.add("bolts", 2)
    writer(world).update()
    world.move_by_hand("champion", 2)
    assert writer(world).update().is_written
    assert served(world) == {"bolts": 2}
    rollout, _ = world.store.read_rollout("bolts")
    assert (rollout.change.by, rollout.aliases.versions) == ("unknown", {"champion": 2, "previous": 1})


def test_a_fresh_registry_is_not_asked_what_is_served(world: World) -> None:
    tasks = [f"line-{number}" for number in range(20)]
    add_champions(world, *tasks)
    writer(world).update()
    foreign = make_registry(FakeMlflow(identity="f" * 32))
    with pytest.raises(ForeignRegistryError, match=r"belongs to registry aaaaaaaa.*`ship sync --adopt`"):
        CatalogWriter(foreign, world.store).update()
    empty = FakeMlflow()
    empty.experiment = None
    with pytest.raises(RegistryMissing, match="nothing was recorded yet"):
        CatalogWriter(make_registry(empty), world.store).update()
    with pytest.raises(ForeignRegistryError):
        CatalogWriter(foreign, world.store).update(may_drop=True)
    assert set(served(world)) == set(tasks)


def test_two_pollers_of_two_registries_come_to_rest(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    ours = writer(world)
    theirs = CatalogWriter(make_registry(FakeMlflow(identity="f" * 32)), world.store)
    ours.update()
    for _ in range(3):
        with pytest.raises(ForeignRegistryError):
            theirs.update()
        assert not ours.update().is_written


def test_a_store_of_before_there_were_owners_is_claimed_by_a_registry_that_knows_it(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    writer(world).update()
    world.objects.delete("registry.json")
    with pytest.raises(ForeignRegistryError, match="knows 0 of the 2 tasks"):
        CatalogWriter(make_registry(FakeMlflow(identity="f" * 32)), PromptStore(world.objects)).update()
    assert PromptStore(world.objects).read_owner() is None
    writer(world).update()
    assert PromptStore(world.objects).read_owner()[0].registry == "a" * 32


def test_another_registry_takes_over_when_it_is_told_to(world: World) -> None:
    add_champions(world, "bolts")
    writer(world).update()
    moved = FakeMlflow(identity="f" * 32)
    moved.models, moved.versions = world.mlflow.models, world.mlflow.versions
    registry = make_registry(moved)
    assert adopt(world.store, registry).registry == "f" * 32
    assert CatalogWriter(registry, world.store).update().is_written
    with pytest.raises(ForeignRegistryError):
        writer(world).update()


def test_a_registry_that_hides_models_drops_no_task(world: World) -> None:
    tasks = [f"line-{number}" for number in range(20)]
    add_champions(world, *tasks)
    writer(world).update()
    world.mlflow.hidden = {"ship.line-1", "ship.line-2"}

    def refuse(name: str) -> None:
        if name == "get_registered_model":
            raise MlflowException("no permission", PERMISSION_DENIED)

    world.mlflow.before = refuse
    change = writer(world).update()
    assert change.missing == ("line-1", "line-2")
    assert "the registry lacks 2 tasks that are served (line-1, line-2): they stay" in change.describe()
    assert set(served(world)) == set(tasks)


def test_many_tasks_at_once_are_not_dropped_unless_that_is_said(world: World) -> None:
    tasks = [f"line-{number}" for number in range(20)]
    add_champions(world, *tasks)
    writer(world).update()
    for task in tasks[:6]:
        world.mlflow.delete_registered_model(f"ship.{task}")
    assert writer(world).update().missing == tuple(sorted(tasks[:6]))
    assert len(served(world)) == 20
    assert writer(world).update(may_drop=True).lost == tuple(sorted(tasks[:6]))
    assert set(served(world)) == set(tasks[6:])


def test_a_task_whose_model_was_deleted_leaves_and_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    add_champions(world, "bolts", "nuts")
    writer(world).update()
    world.mlflow.delete_registered_model("ship.nuts")
    assert writer(world).update().lost == ("nuts",)
    assert served(world) == {"bolts": 1}
    assert "1 tasks left the catalog: nuts" in caplog.text
    assert world.store.read_rollout("nuts")[0].aliases == Aliases()


@pytest.mark.parametrize("is_down", [False, True])
def test_a_rollout_that_cannot_be_read_stops_no_other_and_is_looked_at_again(
    world: World, is_down: bool
) -> None:
    add_champions(world, "bolts", "nuts")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    poller = writer(world)
    poller.update(looks_at_rollouts=True)
    whole, _ = world.objects.stored["rollouts/nuts.json"]

    def down(name: str) -> None:
        if is_down or name.startswith("set_"):
            raise MlflowException("down")

    world.mlflow.before = down
    world.rollouts().rollback("bolts")
    world.objects.put("rollouts/nuts.json", b"{")
    for _ in range(2):
        if is_down:
            with pytest.raises(RegistryDown):
                poller.update()
        else:
            assert set(poller.update(looks_at_rollouts=True).problems) == {"bolts", "nuts"}
        assert served(world) == {"bolts": 1, "nuts": 1}, "the rollout counts before MLflow follows"
    world.mlflow.before = lambda _: None
    poller.update(looks_at_rollouts=True)
    assert served(world) == {"bolts": 1, "nuts": 1}
    assert world.aliases() == {"champion": 1, "previous": 2}
    world.objects.put("rollouts/nuts.json", whole)
    assert not poller.update(looks_at_rollouts=True).problems


def test_what_is_wrong_with_one_task_stops_no_other(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    writer(world).update()
    world.objects.put("rollouts/nuts.json", b"{")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    world.move_by_hand("challenger", 1, task="nuts")
    world.move_by_hand("champion", 9, task="nuts")
    world.mlflow.versions["ship.nuts"][9] = world.mlflow.versions["ship.nuts"][1]
    change = writer(world).update()
    assert set(change.problems) == {"nuts"}
    assert served(world) == {"bolts": 2, "nuts": 1}


def test_another_pollers_catalog_is_not_overwritten_unseen(world: World) -> None:
    add_champions(world, "bolts")

    class Slow(MemoryObjects):
        """Another endpoint writes between its read and its write."""

        def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
            found = super().get(key, max_bytes=max_bytes)
            if key == "catalog.json":
                world.store.write_catalog(Catalog(entries={}), if_match=found.etag)
            return found

    world.store.write_catalog(Catalog(entries={}, registry="b" * 32), None)
    world.store.read_catalog()
    with pytest.raises(ObjectConflict):
        CatalogWriter(world.fresh_registry(), PromptStore(Slow(world.objects.stored))).update()
    assert served(world) == {}


def entry(aliases: dict[str, int], share: str | None = None) -> CatalogEntry | None:
    """Entry of a task with versions 1 to 4, of which the last has no artifact."""
    digests = {1: A, 2: B, 3: C, 4: None}
    tags = {} if share is None else {"ship.canary_share": share}
    standing = Aliases(versions=aliases, share=read_share(aliases, tags))
    return make_entry(standing, {version: digests[version] for version in aliases.values()})


def test_every_version_with_an_alias_can_be_had() -> None:
    found = entry({"champion": 2, "previous": 1, "challenger": 3, "rc": 3, "theirs": 4})
    assert found == CatalogEntry(version=2, digest=B, others={1: A, 3: C})


def test_a_canary_and_a_shadow_are_in_the_catalog() -> None:
    found = entry({"champion": 1, "canary": 2, "shadow": 3}, share="0.25")
    assert found == CatalogEntry(
        version=1, digest=A, others={2: B, 3: C}, canary=Canary(version=2, share=0.25), shadow=3
    )


@pytest.mark.parametrize("share", [None, "", "much", "0", "1", "1.5", "-0.1", "nan", "inf"])
def test_a_canary_without_a_sound_share_takes_nothing(share: str | None) -> None:
    found = entry({"champion": 1, "canary": 2}, share)
    assert found == CatalogEntry(version=1, digest=A, others={2: B})


@pytest.mark.parametrize(
    "aliases", [{"champion": 1, "canary": 1, "shadow": 1}, {"champion": 1, "canary": 4, "shadow": 4}]
)
def test_a_champion_is_not_tried_and_neither_is_what_we_cannot_serve(aliases: dict[str, int]) -> None:
    assert entry(aliases, share="0.5") == CatalogEntry(version=1, digest=A)


@pytest.mark.parametrize("aliases", [{"challenger": 2, "canary": 1}, {"champion": 4, "canary": 1}])
def test_a_task_without_a_champion_of_ours_is_not_served(aliases: dict[str, int]) -> None:
    assert entry(aliases, share="0.5") is None


def test_a_share_that_is_changed_by_hand_changes_the_catalog(world: World) -> None:
    add_champions(world, "bolts")
    world.rollouts().start_canary("bolts", world.add("bolts", 2), 0.1)
    writer(world).update()
    world.now_s += 1000.0
    world.mlflow.models["ship.bolts"].tags["ship.canary_share"] = "0.2"
    writer(world).update()
    assert world.store.read_catalog()[0].entries["bolts"].canary == Canary(version=2, share=0.2)
    rollout, _ = world.store.read_rollout("bolts")
    assert replace(rollout.aliases, versions={}) == Aliases(share=0.2)


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
    poller = writer(world)
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
    poller = writer(world)
    poller.update(looks_at_rollouts=True)
    set_rule(world.rollouts(), "bolts", 1, make_key("bolts-1"), make_key("rule"), instead_of=None)
    assert poller.update(looks_at_rollouts=True).is_written
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}


def test_a_promotion_and_a_rollback_bring_each_version_its_own_rule(world: World) -> None:
    add_champions(world, "bolts")
    poller = writer(world)
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
    writer(world).update()
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}


def test_two_writers_of_the_catalog_lose_no_rule(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    writer(world).update()
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
    writer(world).update()
    follow_rule(world, "rule")
    world.objects.delete("rollouts/bolts.json")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    writer(world).update()
    assert entry_of(world, "bolts").rules == {make_key("bolts-1"): make_key("rule")}
    world.rollouts().rollback("bolts")
    rollout, _ = world.store.read_rollout("bolts")
    assert (rollout.version("champion"), rollout.rules) == (1, {make_key("bolts-1"): make_key("rule")})


def idle(world: World) -> dict[str, IdleTask]:
    found = world.store.read_catalog()
    assert found is not None
    return dict(found[0].idle)


def test_a_task_without_a_champion_is_named_with_the_versions_that_can_be_asked_for(world: World) -> None:
    add_champions(world, "bolts")
    world.add("gears")
    world.move_by_hand("challenger", 1, "gears")
    world.add("nuts")
    writer(world).update()
    assert idle(world) == {"gears": IdleTask(versions={1: make_key("gears-1")}), "nuts": IdleTask()}
    world.rollouts().promote("gears")
    writer(world).update()
    assert (served(world), idle(world)) == ({"bolts": 1, "gears": 1}, {"nuts": IdleTask()})


def test_retired_tasks_leave_the_catalog_however_many_they_are_and_are_not_lost(world: World) -> None:
    tasks = [f"task-{number}" for number in range(20)]
    add_champions(world, *tasks)
    poller = writer(world)
    poller.update()
    for task in tasks[1:]:
        world.rollouts().retire(task)
    assert poller.update() == CatalogChange(is_written=True)
    assert served(world) == {"task-0": 1}
    assert idle(world) == {task: IdleTask(is_retired=True) for task in tasks[1:]}
    world.rollouts().promote("task-1")
    poller.update()
    assert served(world) == {"task-0": 1, "task-1": 1}


def test_a_retirement_is_followed_without_mlflow(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    writer(world).update()

    def fail(_: str) -> None:
        raise MlflowException("down")

    world.mlflow.before = fail
    world.rollouts().retire("bolts")
    with pytest.raises(RegistryDown):
        writer(world).update(looks_at_rollouts=True)
    assert (served(world), idle(world)) == ({"nuts": 1}, {"bolts": IdleTask(is_retired=True)})


def test_a_version_that_waits_takes_its_rule_into_the_catalog(world: World) -> None:
    add_champions(world, "nuts")
    world.add("bolts")
    world.move_by_hand("challenger", 1)
    poller = writer(world)
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
