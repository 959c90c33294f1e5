"""A registry that version 0.1.0 wrote into MLflow is read, rolled back and brought into the catalog."""

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.registry.registry import Registry
from orchestrator.registry.versions import Promotion
from orchestrator.serve.poller import reconcile
from orchestrator.store.collector import Collector
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


def test_tasks_versions_and_champions_are_listed_and_roll_back(registry: Registry) -> None:
    bolts, nuts = registry.tasks()

    assert (bolts.task, bolts.champion.version, bolts.previous, bolts.latest) == ("bolts", 1, 2, 2)
    assert (nuts.task, nuts.champion.version, nuts.previous, nuts.latest) == ("nuts", 2, 1, 2)
    assert bolts.rollout.canary.share == 0.25
    for task, versions in EXPECTED.items():
        found = registry.versions(task)
        assert {str(info.version): info.digest for info in found} == {
            version: expected["digest"] for version, expected in versions.items()
        }
        assert all(info.metrics["accuracy"] == 1.0 and info.gate_reason for info in found)
    assert registry.gated_digests() == {
        (task, expected["digest"]) for task, versions in EXPECTED.items() for expected in versions.values()
    }

    assert registry.rollback("nuts") == Promotion(task="nuts", from_version=2, to_version=1)
    assert registry.champion("nuts").digest == EXPECTED["nuts"]["1"]["digest"]
    assert registry.promote("bolts", 2) == Promotion(task="bolts", from_version=1, to_version=2)
    assert registry.standing("bolts").rollout.canary is None


def test_the_catalog_is_written_as_it_was(registry: Registry, objects: LocalObjects) -> None:
    store = PromptStore(objects)
    assert not reconcile(registry, store), "nothing to change"
    objects.delete("catalog.json")

    assert reconcile(registry, store)

    assert objects.get("catalog.json").data == (WRITTEN / "store" / "catalog.json").read_bytes()


def test_nothing_of_it_is_garbage(registry: Registry, objects: LocalObjects) -> None:
    assert Collector(objects, registry).find(older_than_s=0.0) == []
