"""The follower acts on a new ETag only, and outlives a store that is down."""

from dataclasses import dataclass, field

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.residency.follower import CatalogFollower
from orchestrator.store.documents.catalog import BrokenEntry, Catalog, CatalogEntry


@dataclass
class Source:
    """A catalog object; raises what it is told to."""

    etag: str | None = "1"
    error: Exception | None = None
    num_reads: int = 0
    catalog: Catalog = field(default_factory=lambda: Catalog(entries={}))

    def read_catalog(self) -> tuple[Catalog, str] | None:
        self.num_reads += 1
        if self.error is not None:
            raise self.error
        return None if self.etag is None else (self.catalog, self.etag)


@dataclass
class Residency:
    """Counts what it is asked to apply."""

    applied: list[Catalog] = field(default_factory=list)
    num_refreshed: int = 0

    def apply(self, catalog: Catalog) -> None:
        self.applied.append(catalog)

    def refresh(self) -> None:
        self.num_refreshed += 1


@pytest.fixture
def parts() -> tuple[CatalogFollower, Source, Residency]:
    source, residency = Source(), Residency()
    return CatalogFollower(source, residency, poll_s=0.001), source, residency


def test_a_catalog_is_applied_once_for_each_etag(parts):
    follower, source, residency = parts
    for source.etag in ("1", "1", "2", "2", "1"):
        follower.step()
    assert len(residency.applied) == 3
    assert residency.num_refreshed == 2
    assert follower.is_synced


def test_a_task_whose_entry_cannot_be_read_stays_as_it_was(parts, caplog: pytest.LogCaptureFixture):
    follower, source, residency = parts
    bolts, nuts = (CatalogEntry(version=number, digest=f"{number:064x}") for number in (1, 2))
    source.catalog = Catalog(entries={"bolts": bolts, "nuts": bolts})
    follower.step()
    broken = BrokenEntry(problem="catalog: 'tasks/bolts/digest': too short", place="tasks", values={})
    source.catalog, source.etag = Catalog(entries={"nuts": nuts}, broken={"bolts": broken}), "2"
    follower.step()
    assert residency.applied[-1].entries == {"bolts": bolts, "nuts": nuts}
    assert len(residency.applied[-1].broken) == 1
    assert follower.problem is None, "the look has succeeded"
    assert "1 entries of the catalog cannot be read" in caplog.text
    assert "too short" in caplog.text
    source.catalog, source.etag = Catalog(entries={"nuts": nuts}), "3"
    follower.step()
    assert residency.applied[-1].entries == {"nuts": nuts}


def test_it_is_not_synced_before_there_is_a_catalog(parts):
    follower, source, residency = parts
    source.etag = None
    follower.step()
    assert not follower.is_synced
    assert "no catalog" in follower.problem
    source.etag = "1"
    follower.step()
    assert follower.is_synced
    assert follower.problem is None
    assert len(residency.applied) == 1


def test_a_store_that_is_down_changes_nothing_and_is_logged_once(parts, caplog: pytest.LogCaptureFixture):
    follower, source, residency = parts
    follower.step()
    source.error = StoreError("no route to host")
    for _ in range(3):
        follower.step()
    assert len(residency.applied) == 1
    assert residency.num_refreshed == 0, "it is not known whether it is current"
    assert follower.is_synced
    assert "no route to host" in follower.problem
    assert len(caplog.records) == 1


def test_the_thread_outlives_whatever_a_store_raises(parts):
    follower, source, residency = parts
    source.error = KeyError("a driver's bug")
    follower.start()
    while source.num_reads < 3:
        assert follower.is_alive
    source.error = None
    assert follower.wait_synced(10.0)
    assert len(residency.applied) == 1
    follower.stop()
