"""Faults of a registry, and of a store beside it, each planted and found, and not found where it is not."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from orchestrator.doctor.registry import check_catalog, check_ownership, check_records, check_registry
from orchestrator.doctor.row import Place, Row
from orchestrator.registry.database_file import read_revisions
from orchestrator.registry.ownership import ForeignRegistryError
from orchestrator.registry.registry import Registry, RegistryDown
from tests.unit.orchestrator.doctor.factory import make_place, make_served, told
from tests.unit.orchestrator.registry.factory import World, add_champions, make_catalog_writer
from tests.unit.orchestrator.store.factory import make_artifact, make_key

FIXTURES = Path(__file__).parents[__name__.count(".") - 1] / "fixtures"


def findings(
    check: Callable[[Place], Iterable[Row]], tmp_path: Path, world: World
) -> list[tuple[str, str, str]]:
    rows = check(make_place(tmp_path, world))
    return [(row.state, row.what, row.found) for row in rows if row.state != "ok"]


def test_a_registry_that_answers(tmp_path: Path) -> None:
    rows = list(check_registry(make_place(tmp_path, make_served())))
    assert told(rows) == []
    assert "registry aaaaaaaa" in rows[0].found


def test_a_registry_that_is_down_or_refuses(tmp_path: Path) -> None:
    world = make_served()

    def refuse(name: str) -> None:
        raise MlflowException("connection refused")

    world.mlflow.before = refuse
    with pytest.raises(RegistryDown, match="connection refused"):
        list(check_registry(make_place(tmp_path, world)))


def test_a_database_of_an_older_mlflow(tmp_path: Path) -> None:
    world = make_served()

    def refuse(name: str) -> None:
        raise MlflowException("Detected out-of-date database schema (found version a, but expected b).")

    world.mlflow.before = refuse
    (row,) = check_registry(make_place(tmp_path, world))
    assert (row.state, row.what) == ("fail", "schema")
    assert "mlflow db upgrade" in row.advice


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    empty = make_place(tmp_path, tracking_uri=uri, registry=lambda: Registry(uri))
    assert told(check_registry(empty)) == [("skipped", "registry")]
    world = make_served()
    beside = make_place(tmp_path, world, tracking_uri=uri, registry=lambda: Registry(uri))
    (row,) = check_registry(beside)
    assert (row.state, "tasks that are published" in row.found) == ("fail", True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_schema_listings_do_not_know(tmp_path: Path) -> None:
    place = make_place(tmp_path, make_served())

    def schema(revisions: frozenset[str] | None) -> str:
        rows = check_registry(place, revisions_of=lambda _: revisions)
        return {row.what: row.state for row in rows}["schema"]

    assert schema(read_revisions(f"sqlite:///{FIXTURES / 'written-by-0.1.0' / 'mlflow.db'}")) == "ok"
    assert schema(None) == "ok"
    assert schema(frozenset({"0123456789ab"})) == "warn"


def test_a_store_whose_folder_is_gone_while_versions_name_it(tmp_path: Path) -> None:
    rows = list(check_registry(make_place(tmp_path, make_served(), store=str(tmp_path / "gone"))))
    assert told(rows) == [("fail", "registry")]


def test_a_store_of_another_registry(tmp_path: Path) -> None:
    world = make_served()
    assert findings(check_ownership, tmp_path, world) == []
    world.mlflow.experiment.tags["ship.registry"] = "b" * 32
    with pytest.raises(ForeignRegistryError, match="belongs to registry aaaaaaaa"):
        list(check_ownership(make_place(tmp_path, world)))


def test_a_store_that_no_registry_has_claimed_is_left_unclaimed(tmp_path: Path) -> None:
    world = World()
    assert findings(check_ownership, tmp_path, world) == []
    assert world.store.read_owner() is None


def test_a_catalog_that_is_not_as_the_rollouts_say(tmp_path: Path) -> None:
    world = make_served()
    assert findings(check_catalog, tmp_path, world) == []
    before = world.objects.stored["catalog.json"]
    world.add_tuned(2)
    world.rollouts().promote("bolts", 2)
    world.objects.stored["catalog.json"] = before
    [(state, what, said)] = findings(check_catalog, tmp_path, world)
    assert (state, what, said) == ("warn", "catalog", "it is not as the rollouts say")
    assert world.objects.stored["catalog.json"] == before, "nothing is mended"
    make_catalog_writer(world).update(looks_at_rollouts=True)
    assert findings(check_catalog, tmp_path, world) == []


def test_aliases_behind_the_rollout(tmp_path: Path) -> None:
    world = make_served()
    world.add_tuned(2)

    def refuse(name: str) -> None:
        if name.startswith(("set_", "delete_")):
            raise MlflowException("down")

    world.mlflow.before = refuse
    world.rollouts().promote("bolts", 2)
    world.mlflow.before = lambda name: None
    moved = {what for _, what, _ in findings(check_catalog, tmp_path, world)}
    assert "aliases" in moved
    assert world.aliases()["champion"] == 1, "nothing is mended"


def test_a_catalog_that_is_not_there(tmp_path: Path) -> None:
    world = make_served()
    del world.objects.stored["catalog.json"]
    [(state, _, said)] = findings(check_catalog, tmp_path, world)
    assert (state, said) == ("warn", "there is none yet")


def test_tasks_that_mlflow_lacks(tmp_path: Path) -> None:
    world = World()
    add_champions(world, *(f"task-{number}" for number in range(8)))
    make_catalog_writer(world).update()
    assert findings(check_catalog, tmp_path, world) == []
    for number in range(7):
        world.mlflow.delete_registered_model(f"ship.task-{number}")
    [(state, _, said)] = findings(check_catalog, tmp_path, world)
    assert state == "warn"
    assert said.startswith("served, and missing from MLflow: task-0, task-1")
    assert "and 2 more" in said


def test_entries_and_rollouts_that_are_broken(tmp_path: Path) -> None:
    world = make_served()
    content, at_s = world.objects.stored["catalog.json"]
    values = json.loads(content)
    values["tasks"]["nuts"] = {"version": "two"}
    world.objects.stored["catalog.json"] = json.dumps(values).encode(), at_s
    assert any(
        state == "fail" and said.startswith("nuts: ")
        for state, _, said in findings(check_catalog, tmp_path, world)
    )
    world = make_served()
    world.objects.stored["rollouts/bolts.json"] = b"{", 99.0
    assert any(
        state == "fail" and said.startswith("bolts: ")
        for state, _, said in findings(check_catalog, tmp_path, world)
    )


def test_what_the_store_has_and_mlflow_lacks(tmp_path: Path) -> None:
    world = make_served()
    assert findings(check_records, tmp_path, world) == []
    world.store.publish("nuts", make_key("nuts"), make_artifact("nuts"))
    [(state, what, said)] = findings(check_records, tmp_path, world)
    assert (state, what, said) == ("warn", "records", "published, and not in MLflow: nuts")


def test_artifacts_that_are_gone(tmp_path: Path) -> None:
    world = make_served()
    served = next(iter(world.store.read_catalog()[0].digests))
    idle = world.add_tuned(2)
    for digest in (served, idle):
        del world.objects.stored[f"artifacts/{digest}/prompt.json"]
    found = findings(check_records, tmp_path, world)
    assert [(state, what) for state, what, _ in found] == [("fail", "artifacts"), ("warn", "artifacts")]
    assert served[:12] in found[0][2]
    assert idle[:12] in found[1][2]
