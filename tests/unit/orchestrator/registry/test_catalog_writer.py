"""The catalog says what the rollouts say, is written when that changes, and has one owner."""

from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from orchestrator.errors import ObjectConflict
from orchestrator.registry.catalog_writer import CatalogChange, CatalogWriter, follow_rollout
from orchestrator.registry.ownership import ForeignRegistryError, adopt
from orchestrator.registry.session import RegistryDown, RegistryMissing
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry, IdleTask
from orchestrator.store.documents.rollout import Aliases
from orchestrator.store.objects.protocol import StoredObject
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import (
    MemoryObjects,
    World,
    add_champions,
    idle,
    make_catalog_writer,
    served,
)
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry
from tests.unit.orchestrator.store.factory import make_key

A, B = "a" * 64, "b" * 64


@pytest.fixture
def world() -> World:
    return World()


def test_champions_become_the_catalog_of_the_registry(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    world.add("gears")
    assert make_catalog_writer(world).update() == CatalogChange(is_written=True)
    catalog, _ = world.store.read_catalog()
    assert catalog.registry == world.registry.session.find_identity()
    assert catalog.entries == {
        task: CatalogEntry(version=1, digest=make_key(f"{task}-1")) for task in ("bolts", "nuts")
    }


def test_the_catalog_says_which_backbone_each_version_belongs_to(world: World) -> None:
    small, large = make_key("small"), make_key("large")
    for task, backbone in (("bolts", small), ("nuts", small), ("gears", large), ("caps", None)):
        world.rollouts().promote(task, world.add(task, backbone=backbone), force=True)
    poller = make_catalog_writer(world)
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
    make_catalog_writer(world).update()
    catalog, etag = world.store.read_catalog()
    world.store.write_catalog(replace(catalog, backbone=None), if_match=etag)
    assert make_catalog_writer(world).update().is_written
    assert world.store.read_catalog()[0].backbone == A


def test_a_rollout_that_is_followed_at_once_keeps_the_backbones(world: World) -> None:
    world.rollouts().promote("bolts", world.add("bolts", backbone=A))
    make_catalog_writer(world).update()
    world.rollouts().promote("bolts", world.add("bolts", 2, backbone=B), force=True)
    rollout, _ = world.store.read_rollout("bolts")
    assert follow_rollout(world.store, rollout)
    catalog, _ = world.store.read_catalog()
    assert catalog.backbone_of(make_key("bolts-1")) == A
    assert catalog.backbone_of(make_key("bolts-2")) is None, "the poller asks the registry for it"


def test_a_registry_without_champions_gives_an_empty_catalog(world: World) -> None:
    assert make_catalog_writer(world).update().is_written
    assert served(world) == {}


def test_nothing_is_written_and_no_rollout_is_read_while_nothing_changes(world: World) -> None:
    add_champions(world, "bolts")
    poller = make_catalog_writer(world)
    poller.update()
    before, calls = dict(world.objects.stored), len(world.mlflow.calls)
    assert poller.update() == CatalogChange()
    assert world.objects.stored == before
    assert world.mlflow.calls[calls:] == ["get_experiment_by_name", "search_registered_models"]


def test_a_promotion_is_followed(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    poller = make_catalog_writer(world)
    poller.update()
    world.rollouts().promote("bolts", world.add("bolts", 2))
    assert poller.update().is_written
    assert served(world) == {"bolts": 2, "nuts": 1}


def test_a_command_that_was_ended_before_mlflow_followed_is_followed_all_the_same(world: World) -> None:
    add_champions(world, "bolts")
    world.add("bolts", 2)
    poller = make_catalog_writer(world)
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
    poller = make_catalog_writer(world)
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
    make_catalog_writer(world).update()
    world.move_by_hand("champion", 2)
    assert make_catalog_writer(world).update().is_written
    assert served(world) == {"bolts": 2}
    rollout, _ = world.store.read_rollout("bolts")
    assert (rollout.change.by, rollout.aliases.versions) == ("unknown", {"champion": 2, "previous": 1})


def test_a_fresh_registry_is_not_asked_what_is_served(world: World) -> None:
    tasks = [f"line-{number}" for number in range(20)]
    add_champions(world, *tasks)
    make_catalog_writer(world).update()
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
    ours = make_catalog_writer(world)
    theirs = CatalogWriter(make_registry(FakeMlflow(identity="f" * 32)), world.store)
    ours.update()
    for _ in range(3):
        with pytest.raises(ForeignRegistryError):
            theirs.update()
        assert not ours.update().is_written


def test_a_store_of_before_there_were_owners_is_claimed_by_a_registry_that_knows_it(world: World) -> None:
    add_champions(world, "bolts", "nuts")
    make_catalog_writer(world).update()
    world.objects.delete("registry.json")
    with pytest.raises(ForeignRegistryError, match="knows 0 of the 2 tasks"):
        CatalogWriter(make_registry(FakeMlflow(identity="f" * 32)), PromptStore(world.objects)).update()
    assert PromptStore(world.objects).read_owner() is None
    make_catalog_writer(world).update()
    assert PromptStore(world.objects).read_owner()[0].registry == "a" * 32


def test_another_registry_takes_over_when_it_is_told_to(world: World) -> None:
    add_champions(world, "bolts")
    make_catalog_writer(world).update()
    moved = FakeMlflow(identity="f" * 32)
    moved.models, moved.versions = world.mlflow.models, world.mlflow.versions
    registry = make_registry(moved)
    assert adopt(world.store, registry).registry == "f" * 32
    assert CatalogWriter(registry, world.store).update().is_written
    with pytest.raises(ForeignRegistryError):
        make_catalog_writer(world).update()


def test_a_registry_that_hides_models_drops_no_task(world: World) -> None:
    tasks = [f"line-{number}" for number in range(20)]
    add_champions(world, *tasks)
    make_catalog_writer(world).update()
    world.mlflow.hidden = {"ship.line-1", "ship.line-2"}

    def refuse(name: str) -> None:
        if name == "get_registered_model":
            raise MlflowException("no permission", PERMISSION_DENIED)

    world.mlflow.before = refuse
    change = make_catalog_writer(world).update()
    assert change.missing == ("line-1", "line-2")
    assert "the registry lacks 2 tasks that are served (line-1, line-2): they stay" in change.describe()
    assert set(served(world)) == set(tasks)


def test_many_tasks_at_once_are_not_dropped_unless_that_is_said(world: World) -> None:
    tasks = [f"line-{number}" for number in range(20)]
    add_champions(world, *tasks)
    make_catalog_writer(world).update()
    for task in tasks[:6]:
        world.mlflow.delete_registered_model(f"ship.{task}")
    assert make_catalog_writer(world).update().missing == tuple(sorted(tasks[:6]))
    assert len(served(world)) == 20
    assert make_catalog_writer(world).update(may_drop=True).lost == tuple(sorted(tasks[:6]))
    assert set(served(world)) == set(tasks[6:])


def test_a_task_whose_model_was_deleted_leaves_and_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    add_champions(world, "bolts", "nuts")
    make_catalog_writer(world).update()
    world.mlflow.delete_registered_model("ship.nuts")
    assert make_catalog_writer(world).update().lost == ("nuts",)
    assert served(world) == {"bolts": 1}
    assert "1 tasks left the catalog: nuts" in caplog.text
    assert world.store.read_rollout("nuts")[0].aliases == Aliases()


@pytest.mark.parametrize("is_down", [False, True])
def test_a_rollout_that_cannot_be_read_stops_no_other_and_is_looked_at_again(
    world: World, is_down: bool
) -> None:
    add_champions(world, "bolts", "nuts")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    poller = make_catalog_writer(world)
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
    make_catalog_writer(world).update()
    world.objects.put("rollouts/nuts.json", b"{")
    world.rollouts().promote("bolts", world.add("bolts", 2))
    world.move_by_hand("challenger", 1, task="nuts")
    world.move_by_hand("champion", 9, task="nuts")
    world.mlflow.versions["ship.nuts"][9] = world.mlflow.versions["ship.nuts"][1]
    change = make_catalog_writer(world).update()
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


def test_a_share_that_is_changed_by_hand_changes_the_catalog(world: World) -> None:
    add_champions(world, "bolts")
    world.rollouts().start_canary("bolts", world.add("bolts", 2), 0.1)
    make_catalog_writer(world).update()
    world.now_s += 1000.0
    world.mlflow.models["ship.bolts"].tags["ship.canary_share"] = "0.2"
    make_catalog_writer(world).update()
    assert world.store.read_catalog()[0].entries["bolts"].canary == Canary(version=2, share=0.2)
    rollout, _ = world.store.read_rollout("bolts")
    assert replace(rollout.aliases, versions={}) == Aliases(share=0.2)


def test_a_task_without_a_champion_is_named_with_the_versions_that_can_be_asked_for(world: World) -> None:
    add_champions(world, "bolts")
    world.add("gears")
    world.move_by_hand("challenger", 1, "gears")
    world.add("nuts")
    make_catalog_writer(world).update()
    assert idle(world) == {"gears": IdleTask(versions={1: make_key("gears-1")}), "nuts": IdleTask()}
    world.rollouts().promote("gears")
    make_catalog_writer(world).update()
    assert (served(world), idle(world)) == ({"bolts": 1, "gears": 1}, {"nuts": IdleTask()})


def test_retired_tasks_leave_the_catalog_however_many_they_are_and_are_not_lost(world: World) -> None:
    tasks = [f"task-{number}" for number in range(20)]
    add_champions(world, *tasks)
    poller = make_catalog_writer(world)
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
    make_catalog_writer(world).update()

    def fail(_: str) -> None:
        raise MlflowException("down")

    world.mlflow.before = fail
    world.rollouts().retire("bolts")
    with pytest.raises(RegistryDown):
        make_catalog_writer(world).update(looks_at_rollouts=True)
    assert (served(world), idle(world)) == ({"nuts": 1}, {"bolts": IdleTask(is_retired=True)})
