"""The catalog is written when the champions change, and only then."""

from pathlib import Path

import pytest

from orchestrator.errors import ObjectConflict, RegistryError
from orchestrator.serve.poller import reconcile
from orchestrator.store.catalog import Catalog, CatalogEntry
from orchestrator.store.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.versions import Champion

A, B = "a" * 64, "b" * 64


class Champions:
    """A registry; raises what it is told to."""

    def __init__(self, **digests: str) -> None:
        self.found = {task: Champion(version=1, digest=digest) for task, digest in digests.items()}
        self.error: Exception | None = None

    def champions(self) -> dict[str, Champion]:
        if self.error is not None:
            raise self.error
        return self.found


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(LocalObjects(tmp_path))


def test_champions_become_the_catalog(store: PromptStore):
    assert reconcile(Champions(bolts=A, nuts=B), store)
    catalog, _ = store.read_catalog()
    assert catalog.entries == {
        "bolts": CatalogEntry(version=1, digest=A),
        "nuts": CatalogEntry(version=1, digest=B),
    }


def test_a_registry_without_champions_gives_an_empty_catalog(store: PromptStore):
    assert reconcile(Champions(), store)
    assert store.read_catalog()[0].entries == {}


def test_nothing_is_written_while_nothing_changes(store: PromptStore):
    reconcile(Champions(bolts=A), store)
    before = store.read_catalog()
    assert not reconcile(Champions(bolts=A), store)
    assert store.read_catalog() == before


def test_a_promotion_and_a_deleted_task_change_it(store: PromptStore):
    reconcile(Champions(bolts=A, nuts=A), store)
    assert reconcile(Champions(bolts=B), store)
    assert store.read_catalog()[0].entries == {"bolts": CatalogEntry(version=1, digest=B)}


def test_a_registry_that_is_down_leaves_the_catalog(store: PromptStore):
    champions = Champions(bolts=A)
    reconcile(champions, store)
    champions.error = RegistryError("down")
    with pytest.raises(RegistryError):
        reconcile(champions, store)
    assert set(store.read_catalog()[0].entries) == {"bolts"}


def test_another_pollers_catalog_is_not_overwritten_unseen(store: PromptStore):
    reconcile(Champions(bolts=A), store)

    class Slow(PromptStore):
        """Somebody else writes between its read and its write."""

        def read_catalog(self) -> tuple[Catalog, str] | None:
            found = super().read_catalog()
            store.write_catalog(Catalog(entries={}), if_match=found[1])
            return found

    with pytest.raises(ObjectConflict):
        reconcile(Champions(bolts=B), Slow(store._objects))
    assert store.read_catalog()[0].entries == {}
