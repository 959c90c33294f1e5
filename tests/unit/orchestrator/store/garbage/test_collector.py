import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ObjectConflict, RegistryError, StoreError
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.publication import make_marker
from orchestrator.store.documents.token_changes import create_token
from orchestrator.store.documents.tokens import Scope, Tokens
from orchestrator.store.garbage.collector import Collector
from orchestrator.store.garbage.marks import Marks
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.objects.protocol import ListedObject
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.store.factory import digest_of, make_artifact, make_key
from tests.unit.orchestrator.store.garbage.factory import (
    DAY_S,
    KEY,
    Versions,
    collector,
    later,
    mark,
    write_artifact,
)


class Down:
    """A registry that cannot be asked."""

    def referenced_digests(self) -> set[str]:
        raise RegistryError("MLflow is down")


class InBetween(LocalObjects):
    """Lets something happen once, after a listing that starts with a prefix."""

    def __init__(self, root: Path, prefix: str, happen: Callable[[], None]) -> None:
        super().__init__(root)
        self._prefix = prefix
        self._happenings = [happen]

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        found = list(super().scan(prefix))
        if prefix.startswith(self._prefix) and self._happenings:
            self._happenings.pop()()
        return iter(found)


def age(root: Path) -> None:
    """Make all that is in a folder two days old."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 2 * DAY_S,) * 2)


def test_only_what_nothing_names_goes(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    published = store.publish("bolts", KEY, make_artifact("bolts")).digest
    registered = write_artifact(objects, make_artifact("registered"))
    served = write_artifact(objects, make_artifact("served"))
    orphan = write_artifact(objects, make_artifact("orphan"))
    other = write_artifact(objects, make_artifact("other"))
    entry = CatalogEntry(version=1, digest=served, others={2: other})
    store.write_catalog(Catalog(entries={"served": entry}), None)
    store.snapshots.save("nuts", KEY, b"state")
    mark(objects, published, registered)
    sweeper = later(objects, published, registered)

    found = sweeper.find(DAY_S)
    before = list(objects.list(""))
    gone = sweeper.remove(found)

    assert [(one.kind, one.name) for one in found] == [("artifact", orphan), ("snapshot", f"nuts/{KEY}")]
    assert gone == found
    removed = {key for one in found for key in one.keys}
    assert removed < set(before)
    assert list(objects.list("")) == [key for key in before if key not in removed]
    for digest in (published, registered, served):
        assert digest_of(store.fetch(digest)) == digest


def test_an_artifact_whose_publication_has_not_followed_yet_stays(objects: ObjectStore) -> None:
    write_artifact(objects, make_artifact())
    PromptStore(objects).snapshots.save("bolts", KEY, b"state")

    assert collector(objects, age_s=0).find(DAY_S) == []


def test_a_publication_between_the_listing_and_the_references_counts(tmp_path: Path) -> None:
    root = tmp_path / "store"
    files = make_artifact()
    write_artifact(LocalObjects(root), files)
    # Another one, so that the registry knows something of this store.
    known = PromptStore(LocalObjects(root)).publish("nuts", KEY, make_artifact("nuts")).digest
    age(root)

    def publish() -> None:
        # The marker alone: as late as can be.
        LocalObjects(root).put_new(*marker(tmp_path / "elsewhere", files))

    objects = InBetween(root, "snapshots/", publish)

    assert Collector(objects, Versions(known)).find(DAY_S) == []


def test_what_is_written_again_before_it_goes_stays(tmp_path: Path) -> None:
    root = tmp_path / "store"
    files = make_artifact()
    digest = write_artifact(LocalObjects(root), files)
    age(root)
    mark(LocalObjects(root))
    sweeper = later(LocalObjects(root))
    found = sweeper.find(DAY_S)
    assert [one.name for one in found] == [digest]
    # Its publication has not followed yet.
    for name, content in files.items():
        LocalObjects(root).put(f"artifacts/{digest}/{name}", content)

    assert sweeper.remove(found) == []

    assert PromptStore(LocalObjects(root)).fetch(digest) == files


def test_leftovers_of_killed_writers_go_when_they_are_old(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "store")
    old, young = (tmp_path / "store" / "artifacts" / f".{digit * 32}.tmp" for digit in "01")
    old.parent.mkdir(parents=True)
    old.write_bytes(b"half")
    mark(objects)
    young.write_bytes(b"half")
    os.utime(young, (time.time() + 4 * DAY_S,) * 2)
    sweeper = later(objects)

    [gone] = sweeper.remove(sweeper.find(DAY_S))

    assert (gone.kind, gone.num_bytes) == ("temporary", 4)
    assert (old.exists(), young.exists()) == (False, True)


def test_nothing_goes_when_the_registry_cannot_be_asked(objects: ObjectStore) -> None:
    write_artifact(objects, make_artifact())

    with pytest.raises(RegistryError, match="down"):
        Collector(objects, Down(), now=lambda: time.time() + 2 * DAY_S).find(DAY_S)


def test_a_registry_that_knows_nothing_of_the_store_is_refused(objects: ObjectStore) -> None:
    PromptStore(objects).publish("bolts", KEY, make_artifact())

    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        collector(objects, make_key("something else")).find(DAY_S)


@pytest.mark.parametrize("key", [f"published/bolts/{KEY}.json", "catalog.json"])
def test_nothing_goes_while_a_reference_cannot_be_read(objects: ObjectStore, key: str) -> None:
    write_artifact(objects, make_artifact())
    objects.put(key, b"damaged")

    with pytest.raises(StoreError, match=r"not a publication|catalog"):
        collector(objects).find(DAY_S)


def marker(folder: Path, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Key and content of the publication of an artifact."""
    objects = LocalObjects(folder)
    PromptStore(objects).publish("bolts", KEY, files)
    [key] = objects.list("published/")
    return key, objects.get(key).data


def test_tokens_are_never_collected(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    tokens, _ = create_token(Tokens(), "plc", Scope(predict=("*",)), now_s=0.0)
    etag = store.write_tokens(tokens, None)
    digest = write_artifact(objects, make_artifact())
    mark(objects)
    sweeper = collector(objects, age_s=1000 * DAY_S)

    gone = sweeper.remove(sweeper.find(older_than_s=DAY_S))

    assert [(one.kind, one.name) for one in gone] == [("artifact", digest)]
    assert store.read_tokens() == (tokens, etag)


def test_what_no_earlier_run_has_marked_stays_and_the_wait_is_said(objects: ObjectStore) -> None:
    digest = write_artifact(objects, make_artifact())
    first = collector(objects)
    found = first.find(DAY_S)
    assert first.waits_s(found, DAY_S) == [DAY_S]
    assert first.remove(found) == []
    assert first.waits_s(found, DAY_S) == [DAY_S]

    early = collector(objects, age_s=2.75 * DAY_S)
    found = early.find(DAY_S)
    assert early.remove(found) == []
    assert early.waits_s(found, DAY_S) == pytest.approx([0.25 * DAY_S], abs=60.0), "since the first mark"
    sweeper = later(objects)
    assert [one.name for one in sweeper.remove(sweeper.find(DAY_S))] == [digest]


def test_a_mark_does_not_outlive_what_it_was_put_on(objects: ObjectStore) -> None:
    files = make_artifact()
    digest = write_artifact(objects, files)
    mark(objects)
    # Written again by a publisher, which died before its publication: the wait begins anew.
    for name, content in files.items():
        objects.put(f"artifacts/{digest}/{name}", content)
    shifted = Shifted(objects, 3 * DAY_S)
    sweeper = Collector(shifted, Versions(), now=lambda: time.time() + 5 * DAY_S)
    found = sweeper.find(DAY_S)
    assert [one.name for one in found] == [digest]
    assert sweeper.remove(found) == []


class Shifted:
    """A store that was written to some time later."""

    def __init__(self, objects: ObjectStore, seconds: float) -> None:
        self._objects, self._seconds = objects, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        for found in self._objects.scan(prefix):
            yield replace(found, modified_s=found.modified_s + self._seconds)


@pytest.mark.parametrize("off_s", [7200.0, -7200.0, 1e9])
def test_the_hosts_clock_plays_no_part(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    digest = write_artifact(objects, make_artifact())
    real_s = time.time
    monkeypatch.setattr(time, "time", lambda: real_s() + off_s)
    sweeper = Collector(objects, Versions())

    assert sweeper.find(3600) == [], "it was written just now"
    assert abs(sweeper.now_s - real_s()) < 600
    assert list(objects.list("garbage/")) == []
    assert [one.name for one in sweeper.find(-60.0)] == [digest]


class SlowDelete:
    """A store whose first delete takes so long that something happens meanwhile."""

    def __init__(self, objects: ObjectStore, happen: Callable[[], object]) -> None:
        self._objects, self._happenings = objects, [happen]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def delete(self, key: str) -> None:
        if key.startswith("artifacts/") and self._happenings:
            self._happenings.pop()()
        self._objects.delete(key)


def test_what_is_published_during_a_slow_delete_is_put_back(objects: ObjectStore) -> None:
    files = make_artifact(key=KEY)
    digest = write_artifact(objects, files)
    orphan = write_artifact(objects, make_artifact("orphan"))
    mark(objects)
    store = PromptStore(objects)
    sweeper = later(SlowDelete(objects, lambda: store.publish("bolts", KEY, files)))

    gone = sweeper.remove(sweeper.find(DAY_S))

    assert [one.name for one in gone] == [orphan]
    assert store.published("bolts", KEY).digest == digest
    assert store.fetch(digest) == files


def test_a_publication_after_the_references_were_read_protects_its_artifact(objects: ObjectStore) -> None:
    files = make_artifact(key=KEY)
    digest = write_artifact(objects, files)
    mark(objects)
    sweeper = later(objects)
    found = sweeper.find(DAY_S)
    [name] = [one.name for one in found]
    # The marker alone: the files stay as old as they were.
    objects.put_new(f"published/bolts/{KEY}.json", make_marker("bolts", KEY, digest, 0.0))

    assert name == digest
    assert sweeper.remove(found) == []
    assert PromptStore(objects).fetch(digest) == files


def test_damaged_marks_cost_another_wait_and_nothing_else(objects: ObjectStore) -> None:
    digest = write_artifact(objects, make_artifact())
    mark(objects)
    objects.put("garbage/marked.json", b"damaged")
    sweeper = later(objects)
    assert sweeper.remove(sweeper.find(DAY_S)) == []
    sweeper = collector(objects, age_s=6 * DAY_S)
    assert [one.name for one in sweeper.remove(sweeper.find(DAY_S))] == [digest]


def test_two_runs_at_once_mark_once(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    write_artifact(objects, make_artifact())
    mark(objects)
    first, second = Marks(objects), Marks(objects)
    first.put([], 1.0)
    second_find = collector(objects).find(DAY_S)
    with pytest.raises(ObjectConflict):
        second.put(second_find, 2.0)
