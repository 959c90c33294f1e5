"""An endpoint that starts while the store is down serves what it served before, and says how old that is."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.serve.engine_api import Refusal
from orchestrator.serve.first_catalog import publish_first_catalog
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.residency.disk_cache import with_disk_cache
from orchestrator.serve.residency.follower import CatalogFollower
from orchestrator.serve.residency.kept_catalog import KeptCatalog, open_kept_catalog
from orchestrator.serve.residency.loader import PromptLoader
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.state import describe_served
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.backbone import Backbone
from ship.runtime.runtime import Runtime
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry
from tests.unit.orchestrator.serve.factory import make_artifact
from tests.unit.orchestrator.serve.residency.prompt_pool import PATIENCE_S, find
from tests.unit.orchestrator.store.factory import make_key

URL = "s3://bucket/prompts"
CATALOG = Catalog(entries={"bolts": CatalogEntry(version=1, digest=make_key("1"))})


class Down:
    """A store that is down."""

    def read_catalog(self) -> tuple[Catalog, str] | None:
        raise StoreError("no route to host")

    def fetch(self, digest: str) -> Mapping[str, bytes]:
        raise StoreError("no route to host")

    def fetch_rule(self, digest: str) -> bytes:
        raise StoreError("no route to host")


class Source:
    """The catalog of a store that may go down and come back."""

    def __init__(self, store: PromptStore | Down) -> None:
        self.store = store

    def read_catalog(self) -> tuple[Catalog, str] | None:
        return self.store.read_catalog()


class Engine:
    """Residency, follower and kept catalog, as an engine has them."""

    def __init__(self, runtime: Runtime, store: PromptStore | Down, cache: Path) -> None:
        options = EngineOptions(cache=str(cache), cache_bytes=1 << 30)
        self.residency = Residency(PromptLoader(with_disk_cache(store, options), runtime))
        kept = open_kept_catalog("the-store", options)
        self.source = Source(store)
        self.follower = CatalogFollower(self.source, self.residency, kept)

    def start(self) -> None:
        self.follower.step()
        assert self.residency.wait_loaded(PATIENCE_S)


def test_a_start_without_a_store_serves_what_is_on_disk(tmp_path: Path, runtime: Runtime, backbone: Backbone):
    store = PromptStore(LocalObjects(tmp_path / "store"))
    digest = store.publish("bolts", make_key("1"), make_artifact(backbone, "bolts")).digest
    entries = {"bolts": CatalogEntry(version=1, digest=digest)}
    etag = store.write_catalog(Catalog(entries=entries), if_match=None)
    first = Engine(runtime, store, tmp_path / "cache")
    first.start()
    [path] = (tmp_path / "cache" / "catalogs").iterdir()
    os.utime(path, (time.time() - 500, time.time() - 500))
    first.start()
    assert path.stat().st_mtime > time.time() - PATIENCE_S, "it is still current"
    os.utime(path, (time.time() - 500, time.time() - 500))

    engine = Engine(runtime, Down(), tmp_path / "cache")
    engine.start()

    assert engine.follower.is_synced
    assert "no route to host" in engine.follower.problem
    assert find(engine.residency, "bolts").digest == digest
    assert find(engine.residency, "nuts").reason == "unknown_task"
    assert 500 <= engine.residency.catalog_age_s < 500 + PATIENCE_S
    assert engine.residency.stats().catalog_age_s >= 500

    entries["bolts"] = CatalogEntry(version=2, digest=digest)
    store.write_catalog(Catalog(entries=entries), if_match=etag)
    engine.source.store = store
    engine.start()
    assert find(engine.residency, "bolts").version == 2
    assert engine.residency.catalog_age_s < PATIENCE_S


def test_a_prompt_that_is_not_on_disk_is_refused(tmp_path: Path, runtime: Runtime):
    kept = open_kept_catalog("the-store", EngineOptions(cache=str(tmp_path), cache_bytes=1))
    kept.keep(CATALOG)
    engine = Engine(runtime, Down(), tmp_path)
    engine.start()
    found = find(engine.residency, "bolts")
    assert isinstance(found, Refusal)
    assert "cannot be read now" in found.detail


def test_a_store_that_goes_down_later_brings_no_kept_catalog_back(tmp_path: Path, runtime: Runtime):
    store = PromptStore(LocalObjects(tmp_path / "store"))
    store.write_catalog(Catalog(entries={}), if_match=None)
    engine = Engine(runtime, store, tmp_path / "cache")
    engine.start()
    KeptCatalog(tmp_path / "cache" / "catalogs", "the-store").keep(CATALOG)
    engine.source.store = Down()
    engine.start()
    assert engine.residency.states() == []


def test_it_is_kept_for_this_user_and_reads_back(tmp_path: Path):
    KeptCatalog(tmp_path / "catalogs", URL).keep(CATALOG)
    assert KeptCatalog(tmp_path / "catalogs", URL).read()[0] == CATALOG
    assert KeptCatalog(tmp_path / "catalogs", f"{URL}/other").read() is None, "of another store"
    assert (tmp_path / "catalogs").stat().st_mode & 0o077 == 0


def test_it_is_as_old_as_the_last_look_that_found_it_current(tmp_path: Path):
    kept = KeptCatalog(tmp_path, URL, clock=lambda: 1_000.0)
    kept.keep(CATALOG)
    [path] = tmp_path.iterdir()
    os.utime(path, (400.0, 400.0))
    assert kept.read()[1] == 600.0
    os.utime(path, (2_000.0, 2_000.0))
    assert kept.read()[1] == 0.0, "clocks are set back"
    os.utime(path, (400.0, 400.0))
    kept.confirm()
    assert path.stat().st_mtime > 400.0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x80\x04\x95", b"[" * 100_000, CATALOG.to_bytes()[:-9], b'{"schema":9}']
)
def test_what_is_no_catalog_is_not_served(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture):
    kept = KeptCatalog(tmp_path, URL)
    kept.keep(CATALOG)
    [path] = tmp_path.iterdir()
    path.write_bytes(content)
    assert kept.read() is None
    assert "cannot be served: " in caplog.text


def test_one_that_is_too_large_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    KeptCatalog(tmp_path, URL).keep(CATALOG)
    assert KeptCatalog(tmp_path, URL, max_bytes=10).read() is None
    assert "more than 10 bytes" in caplog.text


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    kept = KeptCatalog(tmp_path / "file" / "catalogs", URL)
    for _ in range(2):
        kept.keep(CATALOG)
    kept.confirm()
    [record] = caplog.records
    assert "serving goes on without" in record.getMessage()
    assert kept.read() is None


def test_the_options_say_whether(tmp_path: Path):
    assert open_kept_catalog(URL, EngineOptions()) is None
    assert open_kept_catalog(URL, EngineOptions(cache=str(tmp_path), cache_bytes=0)) is None


def test_an_old_catalog_is_told_of():
    assert describe_served(3, 1.5) == "3 tasks are served"
    assert describe_served(3, 300.0) == (
        "3 tasks are served, by a catalog that is 300 s old: it cannot be read now"
    )


def test_an_endpoint_starts_without_a_store_if_its_catalog_was_kept(tmp_path: Path):
    (tmp_path / "file").write_text("")
    store = PromptStore(LocalObjects(tmp_path / "file"))
    writer = CatalogWriter(make_registry(FakeMlflow()), store)
    kept = KeptCatalog(tmp_path / "cache" / "catalogs", store.url)
    with pytest.raises(StoreError, match="cannot write"):
        publish_first_catalog(writer, store, kept)
    kept.keep(CATALOG)
    look = publish_first_catalog(writer, store, kept)
    assert "serving the last catalog" in look.warning
