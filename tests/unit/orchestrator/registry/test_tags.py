"""Tags of the manifest on a task's registered model and its versions."""

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.manifest.floors import Floors
from orchestrator.registry.record_writer import RecordWriter
from orchestrator.registry.recorder import Recorder
from orchestrator.registry.versions import TAGS_TAG, given_tags, own_tags
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.registry.fake_mlflow import names_of
from tests.unit.orchestrator.store.factory import make_key, tune


@pytest.fixture
def world() -> World:
    world = World()
    world.add()
    return world


def tagged(world: World) -> dict[str, str]:
    return own_tags(world.mlflow.models["ship.bolts"].tags)


def test_a_manifests_tags_replace_those_of_the_one_before_and_leave_a_persons(world: World) -> None:
    world.registry.tag_task("bolts", {"site": "ulm", "line": "3"}, 10.0)
    world.mlflow.set_registered_model_tag("ship.bolts", "owner", "anna")
    assert tagged(world) == {"site": "ulm", "line": "3", "owner": "anna"}

    world.registry.tag_task("bolts", {"site": "jena"}, 20.0)
    assert tagged(world) == {"site": "jena", "owner": "anna"}
    assert world.registry.tags() == {"bolts": {"site": "jena"}}
    world.registry.tag_task("bolts", {"site": "ulm", "line": "3"}, 10.0)
    assert tagged(world) == {"site": "jena", "owner": "anna"}, "records of an older manifest come too late"
    world.registry.tag_task("bolts", {}, 30.0)
    assert tagged(world) == {"owner": "anna"}


def test_the_same_tags_again_change_nothing(world: World) -> None:
    world.registry.tag_task("bolts", {"site": "ulm"}, 10.0)
    world.mlflow.calls.clear()
    world.registry.tag_task("bolts", {"site": "ulm"}, 10.0)
    world.registry.tag_task("bolts", {}, 5.0)
    assert list(names_of(world.mlflow.calls)) == []


def test_a_task_without_tags_costs_no_write(world: World) -> None:
    world.mlflow.calls.clear()
    world.registry.tag_task("bolts", {}, 10.0)
    assert list(names_of(world.mlflow.calls)) == []


@pytest.mark.parametrize("name", ["ship.task", "ship.canary_share", "mlflow.user", "SHIP.tags", "Mlflow.x"])
def test_no_tag_of_a_manifest_passes_for_one_of_ours(world: World, name: str) -> None:
    before = dict(world.mlflow.models["ship.bolts"].tags)
    world.registry.tag_task("bolts", {name: "forged"}, 10.0)
    assert world.mlflow.models["ship.bolts"].tags == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"names": 3}', '{"names": ["site"], "read_s": "soon"}']
)
def test_a_tag_of_ours_that_a_person_edited_is_no_error(world: World, text: str) -> None:
    assert given_tags({TAGS_TAG: text, "site": "ulm"}) == ({}, 0.0)
    world.mlflow.set_registered_model_tag("ship.bolts", TAGS_TAG, text)
    world.registry.tag_task("bolts", {"site": "ulm"}, 10.0)
    assert world.registry.tags() == {"bolts": {"site": "ulm"}}


@pytest.mark.parametrize("failing", range(3))
def test_tags_that_were_interrupted_are_completed_by_writing_them_again(world: World, failing: int) -> None:
    world.registry.tag_task("bolts", {"line": "3"}, 10.0)
    left = [failing]

    def fail(name: str) -> None:
        if name in ("set_registered_model_tag", "delete_registered_model_tag"):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

    world.mlflow.before = fail
    with pytest.raises(KeyboardInterrupt):
        world.registry.tag_task("bolts", {"site": "ulm"}, 20.0)
    world.mlflow.before = lambda _: None
    world.registry.tag_task("bolts", {"site": "ulm"}, 20.0)
    assert tagged(world) == {"site": "ulm"}


def spec(**tags: str) -> Any:
    return SimpleNamespace(name="bolts", key=make_key("bolts"), floors=Floors(), tags=tags)


def test_tags_that_changed_in_the_manifest_reach_a_task_that_is_not_tuned_again(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    tune(world.store, "bolts")
    published = world.store.all_published()
    digest = published["bolts", make_key("bolts")].digest
    [version] = world.mlflow.versions["ship.bolts"].values()
    version.tags |= {"ship.digest": digest, "ship.gate": "champion"}
    written: list[Any] = []
    monkeypatch.setattr(RecordWriter, "_try", lambda self, task, key, events: written.extend(events))

    for tags, calls in (({"site": "ulm"}, 2), ({"site": "ulm"}, 0), ({"line": "3"}, 3), ({}, 2)):
        world.mlflow.calls.clear()
        with Recorder(world.fresh_registry(), PromptStore(world.objects.client()), tmp_path) as recorder:
            recorder.reconcile(published, [spec(**tags)], read_s=float(len(world.mlflow.calls) + 50))
        assert tagged(world) == tags
        assert len(list(names_of(world.mlflow.calls))) == calls
    assert written == [], "no run is opened, and no artifact is read"
