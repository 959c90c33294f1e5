"""An alias at a version that is gone, as older MLflow servers leave it, concerns its task alone."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.registry.gate import GateDecision
from orchestrator.registry.registry import Registry
from orchestrator.registry.versions import VersionInfo
from tests.unit.orchestrator.registry.factory import (
    World,
    add_champions,
    make_bolts,
    make_catalog_writer,
    served,
)
from tests.unit.orchestrator.store.factory import make_key

GONE = 9


@pytest.fixture
def world() -> World:
    """Versions 1 to 3 of bolts, of which 2 serves and 1 did before; and another task that serves."""
    world = make_bolts()
    add_champions(world, "nuts")
    return world


def delete_as_of_old(world: World, version: int) -> None:
    """Delete a version of bolts, and leave its aliases."""
    del world.mlflow.versions["ship.bolts"][version]


def test_a_listing_leaves_the_alias_out_and_names_it(world: World) -> None:
    world.move_by_hand("staging", GONE)
    world.move_by_hand("champion", GONE)
    bolts, nuts = sorted(world.fresh_registry().models(), key=lambda view: view.task)
    assert bolts == world.fresh_registry().view("bolts")
    assert (bolts.aliases, bolts.digests) == ({"previous": 1}, {1: make_key("bolts-1")})
    assert bolts.broken == {"staging": GONE, "champion": GONE}
    assert "@champion at version 9, @staging at version 9, which is gone" in str(bolts.problem)
    assert "`ship promote bolts VERSION`" in str(bolts.problem)
    assert (nuts.aliases, nuts.broken, nuts.problem) == ({"champion": 1}, {}, None)
    first, second = world.fresh_registry().tasks()
    assert (first.champion, first.aliases, first.broken["champion"]) == (
        None,
        {"previous": 1, "staging": GONE},
        GONE,
    ), "what no list shows is not asked of a server"
    assert second.champion is not None
    assert (second.champion.version, second.problem) == (1, None)


def test_a_file_of_mlflows_is_listed_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    registry = Registry(f"sqlite:///{file}", may_create=True)
    for task in ("bolts", "nuts"):
        registry.register(task, digest="a" * 64, source="file:///x", run_id=None, metrics={}, tags={})
        registry.set_alias(task, "champion", 1)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "INSERT INTO registered_model_aliases (alias, version, name, workspace) "
            "VALUES ('staging', 9, 'ship.bolts', 'default')"
        )
    fresh = Registry(f"sqlite:///{file}")
    assert [(info.task, dict(info.aliases), dict(info.broken)) for info in fresh.tasks()] == [
        ("bolts", {"champion": 1}, {"staging": 9}),
        ("nuts", {"champion": 1}, {}),
    ]
    assert {view.task: dict(view.broken) for view in fresh.models()} == {"bolts": {"staging": 9}, "nuts": {}}


@pytest.mark.parametrize("alias", ["champion", "previous", "canary", "staging"])
def test_it_is_no_move_of_a_person(world: World, alias: str) -> None:
    world.rollouts().start_canary("bolts", 3, 0.1)
    before, _ = world.store.read_rollout("bolts")
    wanted = world.aliases()
    world.move_by_hand(alias, GONE)
    world.now_s += 1000.0
    assert world.rollouts().read("bolts").aliases == before.aliases
    after = world.rollouts().settle("bolts")
    assert (after.aliases, after.generation) == (before.aliases, before.generation)
    assert world.aliases() == wanted, "MLflow is set right"


@pytest.mark.parametrize("alias", ["champion", "staging"])
def test_the_catalog_goes_on_for_all(world: World, alias: str) -> None:
    poller = make_catalog_writer(world)
    poller.update()
    world.move_by_hand(alias, GONE)
    world.rollouts().promote("nuts", world.add("nuts", 2))
    change = poller.update()
    assert set(change.problems) == {"bolts"}
    assert f"@{alias} at version 9" in str(change.describe())
    assert served(world) == {"bolts": 2, "nuts": 2}


def test_a_champion_whose_version_was_deleted_serves_on(world: World) -> None:
    delete_as_of_old(world, 2)
    poller = make_catalog_writer(world)
    for _ in range(2):
        assert set(poller.update(looks_at_rollouts=True).problems) == {"bolts"}
        assert served(world) == {"bolts": 2, "nuts": 1}
        world.now_s += 1000.0
    assert world.aliases() == {"champion": 2, "previous": 1}


def test_a_promotion_mends_it(world: World) -> None:
    delete_as_of_old(world, 2)
    world.move_by_hand("staging", GONE)
    world.rollouts().promote("bolts", 3)
    assert world.aliases() == {"champion": 3}, "there is no version 2 to be the previous one"
    view = world.fresh_registry().view("bolts")
    assert view is not None
    assert view.problem is None
    world.now_s += 1000.0
    assert not make_catalog_writer(world).update().problems
    assert served(world) == {"bolts": 3, "nuts": 1}


def test_a_rollback_to_a_version_that_was_deleted_lasts(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    delete_as_of_old(world, 2)
    assert world.rollouts().rollback("bolts").to_version == 2
    assert world.aliases() == {"previous": 3}, "MLflow does not say that version 3 serves"
    for _ in range(2):
        world.now_s += 1000.0
        make_catalog_writer(world).update(looks_at_rollouts=True)
        assert served(world) == {"bolts": 2, "nuts": 1}
    rollout, _ = world.store.read_rollout("bolts")
    assert (rollout.change.kind, rollout.version("champion")) == ("rollback", 2)
    world.move_by_hand("champion", 1)
    assert world.rollouts().settle("bolts").version("champion") == 1, "and a person may move it"


def test_a_task_that_was_never_changed_here_is_mended_too() -> None:
    world = World()
    world.add(number=1)
    world.move_by_hand("champion", GONE)
    assert set(make_catalog_writer(world).update().problems) == {"bolts"}
    assert world.rollouts().promote("bolts", 1).from_version is None
    assert world.aliases() == {"champion": 1}


def test_the_gate_compares_with_the_artifact_of_a_champion_that_was_deleted(world: World) -> None:
    candidate = world.registry.version("bolts", world.add(number=4))
    delete_as_of_old(world, 2)
    judged: list[VersionInfo | None] = []

    def judge(champion: VersionInfo | None, _: str | None) -> GateDecision:
        judged.append(champion)
        return GateDecision(promote=True, reason="It is better.")

    assert world.rollouts().admit("bolts", candidate, judge).promote
    assert [(info.version, info.digest) for info in judged if info] == [(2, make_key("bolts-2"))]
    assert world.aliases()["champion"] == 4
