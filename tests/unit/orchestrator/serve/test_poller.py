"""The catalog is written when what is served changes, and only then."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import ObjectConflict, RegistryError
from orchestrator.registry.versions import ModelView
from orchestrator.serve.poller import CatalogPoller, reconcile
from orchestrator.store.catalog import Canary, Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore

A, B = "a" * 64, "b" * 64


class Models:
    """A registry of tasks with a champion alone; raises what it is told to."""

    def __init__(self, **digests: str) -> None:
        self.found = [
            ModelView(task=task, aliases={"champion": 1}, tags={}, digests={1: digest})
            for task, digest in digests.items()
        ]
        self.error: Exception | None = None

    def models(self) -> list[ModelView]:
        if self.error is not None:
            raise self.error
        return self.found


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(LocalObjects(tmp_path))


def test_champions_become_the_catalog(store: PromptStore):
    assert reconcile(Models(bolts=A, nuts=B), store)
    catalog, _ = store.read_catalog()
    assert catalog.entries == {
        "bolts": CatalogEntry(version=1, digest=A),
        "nuts": CatalogEntry(version=1, digest=B),
    }


def test_a_registry_without_champions_gives_an_empty_catalog(store: PromptStore):
    assert reconcile(Models(), store)
    assert store.read_catalog()[0].entries == {}


def test_nothing_is_written_while_nothing_changes(store: PromptStore):
    reconcile(Models(bolts=A), store)
    before = store.read_catalog()
    assert not reconcile(Models(bolts=A), store)
    assert store.read_catalog() == before


def test_a_promotion_and_a_deleted_task_change_it(store: PromptStore):
    reconcile(Models(bolts=A, nuts=A), store)
    assert reconcile(Models(bolts=B), store)
    assert store.read_catalog()[0].entries == {"bolts": CatalogEntry(version=1, digest=B)}


def test_a_registry_that_is_down_leaves_the_catalog(store: PromptStore):
    models = Models(bolts=A)
    reconcile(models, store)
    models.error = RegistryError("down")
    with pytest.raises(RegistryError):
        reconcile(models, store)
    assert set(store.read_catalog()[0].entries) == {"bolts"}


def test_another_pollers_catalog_is_not_overwritten_unseen(tmp_path: Path):
    store = PromptStore(LocalObjects(tmp_path))
    reconcile(Models(bolts=A), store)

    class Slow(PromptStore):
        """Another endpoint writes between its read and its write."""

        def read_catalog(self) -> tuple[Catalog, str] | None:
            found = super().read_catalog()
            store.write_catalog(Catalog(entries={}), if_match=found[1])
            return found

    with pytest.raises(ObjectConflict):
        reconcile(Models(bolts=B), Slow(LocalObjects(tmp_path)))
    assert store.read_catalog()[0].entries == {}


def view(aliases: dict[str, int], share: str | None = None) -> Models:
    """A registry of one task, with versions 1 to 4, of which the last has no artifact."""
    found = Models()
    digests = {1: A, 2: B, 3: "c" * 64, 4: None}
    tags = {"ship.task": "bolts"} | ({} if share is None else {"ship.canary_share": share})
    named = {version: digests[version] for version in aliases.values()}
    found.found = [ModelView(task="bolts", aliases=aliases, tags=tags, digests=named)]
    return found


def entry_of(store: PromptStore, models: Models) -> CatalogEntry | None:
    reconcile(models, store)
    entry = store.read_catalog()[0].entries.get("bolts")
    assert not reconcile(models, store), "it is as it was"
    return entry


def test_every_version_with_an_alias_can_be_had(store: PromptStore):
    found = entry_of(store, view({"champion": 2, "previous": 1, "challenger": 3, "rc": 3, "theirs": 4}))
    assert found == CatalogEntry(version=2, digest=B, others={1: A, 3: "c" * 64})


def test_a_canary_and_a_shadow_are_in_the_catalog(store: PromptStore):
    found = entry_of(store, view({"champion": 1, "canary": 2, "shadow": 3}, share="0.25"))
    assert (found.canary, found.shadow) == (Canary(version=2, share=0.25), 3)
    assert set(found.others) == {2, 3}


@pytest.mark.parametrize("share", [None, "", "much", "0", "1", "1.5", "-0.1", "nan", "inf"])
def test_a_canary_without_a_sound_share_takes_nothing(store: PromptStore, share: str | None):
    found = entry_of(store, view({"champion": 1, "canary": 2}, share))
    assert found == CatalogEntry(version=1, digest=A, others={2: B})


@pytest.mark.parametrize(
    "aliases", [{"champion": 1, "canary": 1, "shadow": 1}, {"champion": 1, "canary": 4, "shadow": 4}]
)
def test_a_champion_is_not_tried_and_neither_is_what_we_cannot_serve(
    store: PromptStore, aliases: dict[str, int]
):
    assert entry_of(store, view(aliases, share="0.5")) == CatalogEntry(version=1, digest=A)


@pytest.mark.parametrize("aliases", [{"challenger": 2, "canary": 1}, {"champion": 4, "canary": 1}])
def test_a_task_without_a_champion_of_ours_is_not_served(store: PromptStore, aliases: dict[str, int]):
    assert entry_of(store, view(aliases, share="0.5")) is None


def test_a_share_that_is_changed_by_hand_changes_the_catalog(store: PromptStore):
    aliases = {"champion": 1, "canary": 2}
    assert entry_of(store, view(aliases, share="0.1")).canary.share == 0.1
    assert entry_of(store, view(aliases, share="0.2")).canary.share == 0.2
    assert entry_of(store, view({"champion": 1})).canary is None


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_poller_that_hangs_in_its_registry_is_not_healthy(tmp_path: Path, silent_port: int):
    uri = f"postgresql+psycopg://me@127.0.0.1:{silent_port}/db"
    poller = CatalogPoller(uri, str(tmp_path), poll_s=3600.0, limit_s=0.0)
    while (problem := poller.problem()) is None or "not ended" not in problem:
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="a look at the registry has not ended"):
        poller.check_health()
    assert poller.look_age_s() >= 0.0
