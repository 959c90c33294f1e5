"""The catalog at the start of an endpoint: serving makes no database, and empties no store."""

from pathlib import Path

import pytest

from orchestrator.errors import ServeError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.serve.engine_api import FirstLook
from orchestrator.serve.first_catalog import publish_first_catalog
from orchestrator.settings import Settings
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.owner import Owner
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of an operator who names the store, and no MLflow."""
    return Settings.from_env(
        {"SHIP_STORE": str(tmp_path / "store"), "SHIP_CACHE": str(tmp_path / "cache")},
        home=str(tmp_path / "home"),
    )


def store_of(settings: Settings) -> PromptStore:
    return PromptStore(open_objects(settings.store))


def look_first(settings: Settings, registry: Registry | None = None) -> FirstLook:
    store = store_of(settings)
    return publish_first_catalog(CatalogWriter(registry or Registry(settings.tracking_uri), store), store)


def test_a_store_that_nothing_was_tuned_for_gets_an_empty_catalog(settings: Settings) -> None:
    found = [look_first(settings) for _ in range(2)]
    assert [look.is_written for look in found] == [True, False]
    assert store_of(settings).read_catalog()[0] == Catalog(entries={})
    assert store_of(settings).read_owner() is None
    assert not settings.home.exists(), "no database is made"


def test_what_is_served_from_a_store_stays_without_its_registry(settings: Settings) -> None:
    entries = {f"line-{n}": CatalogEntry(version=1, digest=f"{n:064x}") for n in range(500)}
    store_of(settings).write_catalog(Catalog(entries=entries), None)
    found = look_first(settings)
    assert len(store_of(settings).read_catalog()[0].entries) == 500
    assert not settings.home.exists(), "no database is made"
    assert "there is no MLflow at" in found.warning
    assert "serving the champions of the last catalog" in found.warning


def test_another_registry_than_the_stores_own_starts_no_endpoint(settings: Settings) -> None:
    store_of(settings).write_owner(Owner(registry="a" * 32, where="sqlite:///ours.db", since_s=1.0), None)
    with pytest.raises(ServeError, match="belongs to registry aaaaaaaa"):
        look_first(settings, make_registry(FakeMlflow(identity="f" * 32)))
    assert store_of(settings).read_catalog() is None
