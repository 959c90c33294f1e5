"""Canaries and shadows in a real MLflow on sqlite, from the shell to the catalog."""

import json
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from orchestrator.errors import RegistryError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import Trials, read_trials
from orchestrator.store.documents.catalog import Canary, CatalogEntry
from tests.console import run_ship as run
from tests.integration.place import Place
from tests.unit.orchestrator.store.factory import make_key

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


# The gate refused versions 2 and 3.
FORCE = ("--force", "--reason", "to be tried")


@pytest.fixture
def plant(place: Place) -> Place:
    """Three versions of bolts, the first of which is champion."""
    for number, accuracy in enumerate((0.95, 0.85, 0.86), 1):
        place.record("bolts", key=make_key(str(number)), accuracy=accuracy, accuracy_low=accuracy - 0.01)
    return place


def digest(place: Place, number: int) -> str:
    return place.store.published("bolts", make_key(str(number))).digest


def entry(place: Place) -> CatalogEntry:
    """Catalog entry that another process, which looked before, publishes."""
    CatalogWriter(place.reader, place.store).update()
    return place.store.read_catalog()[0].entries["bolts"]


def test_the_life_of_a_canary(plant: Place) -> None:
    plant.reader = Registry(plant.uri)
    rollouts = Rollouts(plant.registry, plant.store)
    assert entry(plant) == CatalogEntry(version=1, digest=digest(plant, 1), others={3: digest(plant, 3)})

    started = rollouts.start_canary("bolts", 2, 0.1, force=True)

    assert started == Trials(canary=Canary(version=2, share=0.1))
    assert entry(plant).canary == Canary(version=2, share=0.1)
    assert entry(plant).others == {2: digest(plant, 2), 3: digest(plant, 3)}
    assert rollouts.start_canary("bolts", 2, 0.5).canary.share == 0.5
    assert entry(plant).canary.share == 0.5

    plant.rollouts.promote("bolts", 2, force=True)

    assert entry(plant) == CatalogEntry(
        version=2, digest=digest(plant, 2), others={1: digest(plant, 1), 3: digest(plant, 3)}
    )
    view = plant.registry.view("bolts")
    assert view.aliases == {"champion": 2, "challenger": 3, "previous": 1}
    assert "ship.canary_share" not in view.tags


def test_a_canary_outlives_the_promotion_of_another_version(plant: Place) -> None:
    rollouts = Rollouts(plant.registry, plant.store)
    rollouts.start_canary("bolts", 2, 0.25, force=True)
    rollouts.start_shadow("bolts", 3)
    plant.rollouts.promote("bolts", 3, force=True)
    assert read_trials(rollouts.read("bolts").aliases) == Trials(canary=Canary(version=2, share=0.25))
    assert rollouts.stop_canary("bolts") == Trials(canary=Canary(version=2, share=0.25))
    assert rollouts.stop_canary("bolts") == Trials()
    assert rollouts.stop_shadow("bolts") == Trials()


def test_an_alias_that_was_moved_in_mlflow_is_seen_at_the_next_look(plant: Place) -> None:
    plant.reader = Registry(plant.uri)
    entry(plant)
    client = MlflowClient(tracking_uri=plant.uri, registry_uri=plant.uri)
    client.set_registered_model_alias("ship.bolts", "canary", "3")
    assert entry(plant).canary is None, "no share was given"
    client.set_registered_model_tag("ship.bolts", "ship.canary_share", "0.05")
    client.set_registered_model_alias("ship.bolts", "night-shift", "2")
    client.set_registered_model_alias("ship.bolts", "champion", "3")
    found = entry(plant)
    assert (found.version, found.others) == (3, {1: digest(plant, 1), 2: digest(plant, 2)})
    assert found.canary is None, "it is the champion now"
    client.set_registered_model_alias("ship.bolts", "shadow", "2")
    assert entry(plant).shadow == 2


def test_a_look_costs_one_call_and_one_for_each_new_version(
    plant: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.reader = Registry(plant.uri)
    calls: list[str] = []
    client = plant.reader.session.client
    for name in ("search_registered_models", "get_model_version", "search_model_versions"):
        call = getattr(client, name)

        def count(*args: object, _name: str = name, _call: object = call, **options: object) -> object:
            calls.append(_name)
            return _call(*args, **options)

        monkeypatch.setattr(client, name, count)
    entry(plant)
    # The listing has the newest version.
    assert calls == ["search_registered_models", "get_model_version"]
    calls.clear()
    Rollouts(plant.registry, plant.store).start_canary("bolts", 2, 0.1, force=True)
    entry(plant)
    entry(plant)
    assert calls == ["search_registered_models", "get_model_version", "search_registered_models"]


def test_what_cannot_be_tried_says_why(plant: Place) -> None:
    rollouts = Rollouts(plant.registry, plant.store)
    client = MlflowClient(tracking_uri=plant.uri, registry_uri=plant.uri)
    client.create_model_version("ship.bolts", source="s3://somewhere/else")
    client.create_registered_model("ship.nuts")
    client.create_model_version("ship.nuts", source="s3://somewhere/else")
    for start in (lambda *to: rollouts.start_canary(*to, 0.1), rollouts.start_shadow):
        for task, version, words in (
            ("bolt", 2, "did you mean bolts"),
            ("bolts", 9, "no version 9; it has: 4, 3, 2, 1"),
            ("bolts", 1, "is its champion and answers already"),
            ("bolts", 4, "names no artifact of ours"),
            ("nuts", 1, "has no champion.*ship promote nuts 1"),
        ):
            with pytest.raises(RegistryError, match=words):
                start(task, version)
    assert read_trials(rollouts.read("bolts").aliases) == Trials()


Ship = Callable[..., str]


@pytest.fixture
def ship(plant: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ship:
    """Runs the command on the plant; returns what it prints."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", plant.uri)
    monkeypatch.setenv("SHIP_STORE", str(plant.folder / "store"))
    monkeypatch.setenv("COLUMNS", "200")

    def ship(*arguments: str) -> str:
        assert run(monkeypatch, *arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return ship


def test_the_shell_starts_shows_and_ends_both(
    plant: Place, ship: Ship, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "version 2 answers 12.5% of the requests now" in ship("canary", "bolts", "2", "12.5%", *FORCE)
    assert json.loads(ship("shadow", "bolts", "3", "--json")) == {
        "task": "bolts",
        "canary": {"version": 2, "share": 0.125},
        "shadow": 3,
    }
    assert "v2, 12.5%" in ship("ls")
    [listed] = json.loads(ship("ls", "--json"))
    assert (listed["canary"], listed["shadow"]) == ({"version": 2, "share": 0.125}, 3)
    shown = ship("show", "bolts")
    assert "canary" in shown
    assert "shadow" in shown
    assert json.loads(ship("canary", "bolts", "2", "0%", "--json"))["canary"] is None
    assert "there was no canary" in ship("canary", "bolts", "--stop")
    assert "version 3 is no shadow any more" in ship("shadow", "bolts", "--stop")
    assert run(monkeypatch, "canary", "bolts", "1", "5%") == 1
    assert "is its champion" in capsys.readouterr().err


def test_the_shell_retires_a_task_and_brings_it_back(
    plant: Place, ship: Ship, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [before] = json.loads(ship("ls", "--json"))
    champion = before["champion"]["version"]
    assert before["serves_since"] is not None
    assert f"version {champion} serves no more" in ship("retire", "bolts", "--reason", "line 3 is closed")
    assert json.loads(ship("ls", "--json")) == []
    assert "1 retired: `ship ls --all` lists them." in ship("ls")
    [listed] = json.loads(ship("ls", "--all", "--json"))
    assert (listed["retired"], listed["champion"], listed["serves_since"]) == (True, None, None)
    assert "line 3 is closed" in ship("show", "bolts")
    ship("sync")
    [idle] = plant.store.read_catalog()[0].idle.items()
    assert (idle[0], idle[1].is_retired) == ("bolts", True)
    assert f"version {champion} serves now" in ship("promote", "bolts")
    assert json.loads(ship("ls", "--json"))[0]["champion"]["version"] == champion
    assert json.loads(ship("retire", "bolts", "--json")) == {"task": "bolts", "retired": champion}
    assert run(monkeypatch, "retire", "bolt") == 1
    assert "did you mean bolts?" in capsys.readouterr().err


def test_the_shell_lists_tasks_by_tag_and_name(
    plant: Place, ship: Ship, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant.record("weld-1", accuracy=0.95)
    plant.record("weld-2", accuracy=0.7, accuracy_low=0.4)
    for task, tags in (("bolts", {"site": "ulm"}), ("weld-1", {"site": "ulm", "line": "3"})):
        plant.registry.tag_task(task, tags, 1.0)

    def names(*arguments: str) -> list[str]:
        return [task["task"] for task in json.loads(ship("ls", "--json", *arguments))]

    assert names() == ["bolts", "weld-1", "weld-2"]
    assert names("--tag", "site=ulm", "--tag", "line=3") == ["weld-1"]
    assert names("--only", "weld-*", "--sort", "accuracy") == ["weld-2", "weld-1"]
    assert names("--only", "weld-*", "--sort", "accuracy", "--reverse") == ["weld-1", "weld-2"]
    printed = ship("ls")
    assert "0.7000 (challenger)" in printed
    assert "line=3, site=ulm" in printed
    assert run(monkeypatch, "ls", "--tag", "site=jena") == 2
    assert "no task has the tags site=jena; site is one of ulm" in capsys.readouterr().err
    assert run(monkeypatch, "ls", "--only", "weldd-1") == 2
    assert "the registry has no such task; did you mean 'weld-1'" in capsys.readouterr().err


def test_the_shell_brings_catalog_and_registry_in_line(
    plant: Place, ship: Ship, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "The catalog is written." in ship("sync")
    assert "was in line already" in ship("sync")
    MlflowClient(tracking_uri=plant.uri, registry_uri=plant.uri).delete_registered_model("ship.bolts")
    assert json.loads(ship("sync", "--json")) == {
        "is_written": True,
        "lost": ["bolts"],
        "missing": [],
        "problems": {},
    }
    other = f"sqlite:///{plant.folder / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    assert run(monkeypatch, "sync") == 1
    assert "there is no MLflow at" in capsys.readouterr().err
    assert Registry(other, may_create=True).session.experiment_id
    assert run(monkeypatch, "sync") == 1
    assert "belongs to registry" in capsys.readouterr().err
    ship("sync", "--adopt")
    assert plant.store.read_owner()[0].where.endswith("other.db")


def test_the_last_change_and_its_reason_are_shown(plant: Place, ship: Ship) -> None:
    ship("promote", "bolts", "2", "--force", "--reason", "new camera")
    shown = ship("show", "bolts")
    assert "Last change: promote, " in shown
    assert ": new camera" in shown
    assert json.loads(ship("show", "bolts", "--json"))["change"]["reason"] == "new camera"


def test_a_version_that_was_seen_while_it_was_made_is_served_once_promoted(
    plant: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.reader = Registry(plant.uri)
    client = plant.reader.session.client
    search = client.search_registered_models

    def search_in_the_middle(*arguments: object, **options: object) -> object:
        """As MLflow does: a version is listed before it has its tags."""
        page = search(*arguments, **options)
        for model in page:
            for version in model.latest_versions:
                version._tags = {}
        return page

    with monkeypatch.context() as patch:
        patch.setattr(client, "search_registered_models", search_in_the_middle)
        assert entry(plant).version == 1
    # From now on another one is the newest, and the listing tells of that one only.
    plant.record("bolts", key=make_key("4"), accuracy=0.8, accuracy_low=0.79)
    plant.rollouts.promote("bolts", 3, force=True)
    assert entry(plant).version == 3
