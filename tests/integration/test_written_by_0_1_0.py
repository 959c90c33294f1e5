"""A registry that version 0.1.0 wrote into MLflow is read, rolled back and brought into the catalog."""

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import Promotion
from orchestrator.store.garbage.collector import Collector
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore

WRITTEN = Path(__file__).parents[1] / "fixtures" / "written-by-0.1.0"
EXPECTED = json.loads((WRITTEN / "expected.json").read_text())

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    shutil.copy(WRITTEN / "mlflow.db", tmp_path)
    return Registry(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    shutil.copytree(WRITTEN / "store", tmp_path / "store")
    return LocalObjects(tmp_path / "store")


def test_tasks_versions_and_champions_are_listed_and_roll_back(
    registry: Registry, objects: LocalObjects
) -> None:
    bolts, nuts = registry.tasks()

    assert (bolts.task, bolts.champion.version, bolts.previous, bolts.latest) == ("bolts", 1, 2, 2)
    assert (nuts.task, nuts.champion.version, nuts.previous, nuts.latest) == ("nuts", 2, 1, 2)
    assert bolts.trials.canary.share == 0.25
    for task, versions in EXPECTED.items():
        found = registry.versions(task)
        assert {str(info.version): info.digest for info in found} == {
            version: expected["digest"] for version, expected in versions.items()
        }
        assert all(info.metrics["accuracy"] == 1.0 and info.gate_reason for info in found)
    assert registry.gated_versions().keys() == {
        (task, expected["digest"]) for task, versions in EXPECTED.items() for expected in versions.values()
    }

    rollouts = Rollouts(registry, PromptStore(objects))
    assert rollouts.rollback("nuts") == Promotion(task="nuts", from_version=2, to_version=1)
    assert registry.champion("nuts").digest == EXPECTED["nuts"]["1"]["digest"]
    assert rollouts.promote("bolts", 2) == Promotion(task="bolts", from_version=1, to_version=2)
    assert "canary" not in rollouts.read("bolts").aliases.versions


def test_the_catalog_says_what_it_said_and_has_an_owner(registry: Registry, objects: LocalObjects) -> None:
    store = PromptStore(objects)
    before, _ = store.read_catalog()

    assert CatalogWriter(registry, store).update().is_written

    after, _ = store.read_catalog()
    assert (before.entries, before.registry) == (after.entries, None)
    assert after.registry == store.read_owner()[0].registry == registry.session.find_identity()
    assert not CatalogWriter(registry, store).update().is_written, "nothing to change"
    assert list(objects.list("rollouts/")) == [], "none is made before the first change"


def test_nothing_of_it_is_garbage(registry: Registry, objects: LocalObjects) -> None:
    assert Collector(objects, registry).find(older_than_s=0.0) == []
