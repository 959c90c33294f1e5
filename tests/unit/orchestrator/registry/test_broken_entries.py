"""Whatever cannot be read of one task, in MLflow or in the store, concerns that task alone."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from orchestrator.errors import StoreError
from orchestrator.registry.catalog_writer import serve_now
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.registry import Registry
from orchestrator.registry.session import RegistryDown
from tests.unit.orchestrator.registry.factory import (
    World,
    add_champions,
    make_bolts,
    make_catalog_writer,
    served,
)
from tests.unit.orchestrator.store.factory import make_key

ROLLOUT, CATALOG = "rollouts/bolts.json", "catalog.json"


@pytest.fixture
def world() -> World:
    """Versions 1 to 3 of bolts, of which 2 serves and 1 did before; and another task that serves."""
    world = make_bolts()
    add_champions(world, "nuts")
    make_catalog_writer(world).update(looks_at_rollouts=True)
    return world


def write(world: World, key: str, content: bytes) -> None:
    """Write over an object, as a person with an editor does."""
    world.objects.stored[key] = content, max(at for _, at in world.objects.stored.values()) + 10.0


def fail_version(world: World, version: int, code: int) -> None:
    """MLflow fails to read one version of bolts."""
    fake = world.mlflow
    whole = fake.versions["ship.bolts"]

    class Failing(dict[int, object]):
        def get(self, number: int, default: object = None) -> object:
            if number == version:
                raise MlflowException("a row is broken", code)
            return super().get(number, default)

    fake.versions["ship.bolts"] = Failing(whole)  # type: ignore[assignment]


@pytest.mark.parametrize("code", [INTERNAL_ERROR, INVALID_PARAMETER_VALUE])
def test_a_version_that_mlflow_fails_to_read_is_left_out_of_its_task(world: World, code: int) -> None:
    fail_version(world, 2, code)
    views = {view.task: view for view in world.fresh_registry().models()}
    assert (dict(views["bolts"].broken), dict(views["nuts"].broken)) == ({"champion": 2}, {})
    assert set(make_catalog_writer(world).update(looks_at_rollouts=True).problems) == {"bolts"}
    assert served(world) == {"bolts": 2, "nuts": 1}, "and what serves goes on"


def test_an_mlflow_that_is_away_is_told_from_a_broken_version(world: World) -> None:
    registry = world.fresh_registry()

    def refuse(_: str) -> None:
        if "get_model_version" in world.mlflow.calls[1:]:
            raise MlflowException("it is away", INTERNAL_ERROR)

    world.mlflow.calls.clear()
    world.mlflow.before = refuse
    with pytest.raises(RegistryDown):
        registry.models()


def test_without_a_rollout_a_champion_that_cannot_be_read_stays_in_the_catalog(world: World) -> None:
    del world.objects.stored[ROLLOUT]
    fail_version(world, 2, INTERNAL_ERROR)
    assert set(make_catalog_writer(world).update(looks_at_rollouts=True).problems) == {"bolts"}
    assert served(world) == {"bolts": 2, "nuts": 1}


@pytest.mark.parametrize("version", ["abc", "", "-1", "1e3", "9" * 40])
def test_an_alias_at_no_number_is_named(world: World, version: str) -> None:
    world.mlflow.models["ship.bolts"].aliases["staging"] = version
    bolts = world.fresh_registry().view("bolts")
    assert bolts is not None
    assert "@staging at version ?" in str(bolts.problem)
    assert bolts.aliases["champion"] == 2
    world.rollouts().promote("bolts", 3)
    assert world.aliases() == {"champion": 3, "previous": 2}


def test_an_alias_whose_name_mlflow_refuses_holds_up_no_promotion(world: World) -> None:
    world.mlflow.models["ship.bolts"].aliases["an odd\nname"] = "9"
    fake, drop = world.mlflow, world.mlflow.delete_registered_model_alias

    def refuse(name: str, alias: str) -> None:
        if alias == "an odd\nname":
            raise MlflowException("no such name", INVALID_PARAMETER_VALUE)
        drop(name, alias)

    fake.delete_registered_model_alias = refuse  # type: ignore[method-assign]
    world.rollouts().promote("bolts", 3)
    assert world.aliases()["champion"] == 3
    problem = make_catalog_writer(world).update().problems["bolts"]
    assert r"@an odd\nname at version 9" in problem
    assert served(world) == {"bolts": 3, "nuts": 1}


ODD_TAGS = [
    {"ship.metrics": '{"accuracy": NaN}'},
    {"ship.metrics": f'{{"accuracy": {"9" * 400}}}'},
    {"ship.metrics": "[" * 5000},
    {"ship.metrics": "[]"},
    {"ship.verdict": "[" * 5000},
    {"ship.published_s": "1e300"},
    {"ship.published_s": None},
]


@pytest.mark.parametrize("tags", ODD_TAGS, ids=str)
def test_tags_of_a_version_that_cannot_be_read_are_left_out(world: World, tags: dict[str, str]) -> None:
    world.mlflow.versions["ship.bolts"][2].tags.update(tags)
    bolts, nuts = world.fresh_registry().tasks()
    assert bolts.champion is not None
    assert (bolts.champion.version, bolts.champion.advice) == (2, None)
    assert bolts.champion.metrics.get("accuracy", 0.9) == 0.9
    assert bolts.champion.published_s < 1e11
    assert nuts.champion is not None
    make_catalog_writer(world).update()
    assert served(world) == {"bolts": 2, "nuts": 1}


def test_rows_of_a_file_that_are_no_dates_and_no_text_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    registry = Registry(f"sqlite:///{file}", may_create=True)
    for task in ("bolts", "nuts"):
        registry.register(task, digest="a" * 64, source="file:///x", run_id=None, metrics={}, tags={})
        registry.set_alias(task, "champion", 1)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE registered_models SET last_updated_time = NULL WHERE name = 'ship.bolts'")
        database.execute("UPDATE model_versions SET creation_time = NULL WHERE name = 'ship.bolts'")
        database.execute("UPDATE model_version_tags SET value = NULL WHERE name = 'ship.bolts'")
        database.execute(
            "INSERT INTO registered_model_tags (key, value, name, workspace) "
            "VALUES ('ship.champion_since', '1@1e300', 'ship.bolts', 'default'), "
            "('note', CAST(x'ff' AS TEXT), 'ship.bolts', 'default')"
        )
    bolts, nuts = Registry(f"sqlite:///{file}").tasks()
    assert bolts.champion is not None
    assert (bolts.champion.version, bolts.champion.digest, bolts.champion.created_s) == (1, None, 0.0)
    assert (bolts.updated_s, bolts.serves_since_s) == (0.0, None)
    assert nuts.champion is not None
    assert nuts.champion.digest == "a" * 64


def test_a_model_without_versions_is_listed(world: World) -> None:
    world.mlflow.create_registered_model("ship.empty", {})
    world.mlflow.create_registered_model("ship.No Task", {})
    infos = {info.task: info for info in world.fresh_registry().tasks()}
    assert set(infos) == {"bolts", "nuts", "empty"}
    assert (infos["empty"].champion, infos["empty"].latest, infos["empty"].problem) == (None, None, None)
    assert not make_catalog_writer(world).update().problems


BROKEN = [b"", b"\xff", b"{}", b'{"schema": 1}', b"[" * 60_000]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[:10]))
def test_a_rollout_that_cannot_be_read_concerns_its_task_alone_until_it_is_promoted(
    world: World, content: bytes
) -> None:
    write(world, ROLLOUT, content)
    world.rollouts().promote("nuts", world.add("nuts", 2))
    poller = make_catalog_writer(world)
    assert set(poller.update(looks_at_rollouts=True).problems) == {"bolts"}
    assert served(world) == {"bolts": 2, "nuts": 2}
    assert world.rollouts().promote("bolts", 2).from_version == 2, "also of what serves already"
    rollout, _ = world.store.read_rollout("bolts") or pytest.fail("it is written anew")
    assert (rollout.version("champion"), rollout.version("previous"), rollout.change.kind) == (
        2,
        1,
        "promote",
    )
    assert not poller.update(looks_at_rollouts=True).problems
    assert served(world) == {"bolts": 2, "nuts": 2}


def test_the_gate_mends_a_rollout_that_cannot_be_read(world: World) -> None:
    candidate = world.registry.version("bolts", world.add(number=4))
    write(world, ROLLOUT, b"{")
    judged = []

    def judge(champion: object, _: object) -> GateDecision:
        judged.append(champion)
        return GateDecision(promote=True, reason="It is better.")

    assert world.rollouts().admit("bolts", candidate, judge).promote
    assert [getattr(one, "version", None) for one in judged] == [2], "against MLflow's champion"
    assert world.rollouts().read("bolts").version("champion") == 4


def test_a_rollout_of_a_later_version_of_this_program_is_not_written_over(world: World) -> None:
    later = json.loads(world.objects.stored[ROLLOUT][0]) | {"schema": 2}
    write(world, ROLLOUT, json.dumps(later).encode())
    with pytest.raises(StoreError, match="later version of this program"):
        world.rollouts().promote("bolts", 3)
    assert json.loads(world.objects.stored[ROLLOUT][0]) == later


def test_a_deleted_task_with_a_rollout_that_cannot_be_read_leaves_the_catalog(world: World) -> None:
    write(world, ROLLOUT, b"{")
    world.mlflow.delete_registered_model("ship.bolts")
    change = make_catalog_writer(world).update()
    assert (change.lost, set(change.problems), served(world)) == (("bolts",), {"bolts"}, {"nuts": 1})


def break_entry(world: World) -> None:
    values = json.loads(world.objects.stored[CATALOG][0])
    values["tasks"]["bolts"]["digest"] = "abc"
    write(world, CATALOG, json.dumps(values).encode())


def test_an_entry_of_the_catalog_that_cannot_be_read_is_written_anew(world: World) -> None:
    break_entry(world)
    assert served(world) == {"nuts": 1}
    assert make_catalog_writer(world).update().is_written
    assert served(world) == {"bolts": 2, "nuts": 1}


@pytest.mark.parametrize("task", ["bolts", "nuts"])
def test_a_promotion_beside_an_entry_that_cannot_be_read(world: World, task: str) -> None:
    break_entry(world)
    version = world.add(task, 7)
    world.rollouts().promote(task, version)
    found = serve_now(world.store, task)
    assert (found.version, found.problem) == (version, None)
    stored = world.store.read_catalog()
    assert stored is not None
    assert set(stored[0].broken) == {"bolts"} - {task}, "the other one waits for the poller, and is kept"


def test_without_mlflow_an_entry_that_cannot_be_read_is_kept(world: World) -> None:
    break_entry(world)
    world.rollouts().promote("nuts", world.add("nuts", 2))

    def refuse(_: str) -> None:
        raise MlflowException("it is away", INTERNAL_ERROR)

    world.mlflow.before = refuse
    with pytest.raises(RegistryDown):
        make_catalog_writer(world).update(looks_at_rollouts=True)
    assert served(world)["nuts"] == 2


def outage(world: World) -> None:
    def refuse(when: str) -> None:
        raise StoreError("the store is away")

    world.objects.hook = refuse


def no_catalog(world: World) -> None:
    del world.objects.stored[CATALOG]


def torn(world: World) -> None:
    write(world, CATALOG, b"{")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (outage, "the store is away"),
        (no_catalog, "there is no catalog yet: `ship serve` writes it"),
        (torn, "the catalog cannot be brought in line: catalog: "),
    ],
)
def test_what_serves_is_told_only_where_the_catalog_has_it(
    world: World, harm: Callable[[World], None], problem: str
) -> None:
    world.rollouts().promote("bolts", 3)
    harm(world)
    found = serve_now(world.store, "bolts")
    assert found.version is None
    assert problem in str(found.problem)


def test_a_first_promotion_serves_at_once(world: World) -> None:
    add_champions(world, "welds")
    assert serve_now(world.store, "welds").version == 1
    assert served(world) == {"bolts": 2, "nuts": 1, "welds": 1}
    world.rollouts().retire("welds")
    assert serve_now(world.store, "welds").version is None
    assert served(world) == {"bolts": 2, "nuts": 1}
    assert not make_catalog_writer(world).update().is_written, "the poller would write the same"


def test_one_call_lists_all_tasks_whatever_is_broken_of_some(world: World) -> None:
    for number in range(50):
        world.rollouts().promote(f"task-{number}", world.add(f"task-{number}"))
    world.move_by_hand("staging", 9)
    registry = world.fresh_registry()
    registry.models()
    world.mlflow.calls.clear()
    registry.models()
    assert world.mlflow.calls == ["search_registered_models", "get_model_version"]


def test_of_an_older_version_that_a_person_asks_for_the_gate_decides_again(world: World) -> None:
    first = world.registry.version("bolts", 1)

    def judge(*_: object) -> GateDecision:
        return GateDecision(promote=True, reason="It is no worse.")

    late = world.rollouts().admit("bolts", first, judge)
    assert (late.promote, late.gate) == (False, "older")
    assert world.rollouts().admit("bolts", first, judge, again=True).promote
    assert world.rollouts().read("bolts").version("champion") == 1
    assert first.digest == make_key("bolts-1")
