import hashlib
import json
import os
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError, ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.open import ObjectStore, open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.held_out import HeldOut
from tests.unit.orchestrator.store.factory import digest_of, make_artifact, make_key

KEY = make_key("bolts")


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(open_objects(str(tmp_path / "store")), clock=lambda: 7.0)


def folder(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "store" / "artifacts" / digest


class SlowPublisher(LocalObjects):
    """Lets another writer publish in the moment before its own marker."""

    def put_new(self, key: str, data: bytes) -> bool:
        if key.startswith("published/"):
            PromptStore(LocalObjects(self._root)).publish("bolts", KEY, make_artifact(accuracy=0.7))
        return super().put_new(key, data)


class LosesReply(LocalObjects):
    """Writes, but says that the object was there: as if a repeated request met its own first try."""

    def put_new(self, key: str, data: bytes) -> bool:
        super().put_new(key, data)
        return False


def test_what_is_published_is_found_and_fetched(objects: ObjectStore) -> None:
    store = PromptStore(objects, clock=lambda: 7.0)
    files = make_artifact()

    publication = store.publish("bolts", KEY, files)

    assert publication.created
    assert publication.digest == digest_of(files)
    assert publication.uri == f"{objects.url}/artifacts/{digest_of(files)}"
    assert publication.time_s == 7.0
    assert store.fetch(publication.digest) == files
    found = store.published("bolts", KEY)
    assert found is not None
    assert found.digest == publication.digest
    assert not found.created
    assert store.all_published() == {("bolts", KEY): found}
    assert store.published_keys() == {("bolts", KEY)}


def test_a_late_writer_changes_nothing_and_is_told(store: PromptStore, tmp_path: Path) -> None:
    first = store.publish("bolts", KEY, make_artifact(accuracy=0.9))

    late = store.publish("bolts", KEY, make_artifact(accuracy=0.8))

    assert not late.created
    assert late.digest == first.digest
    assert [path.name for path in (tmp_path / "store" / "artifacts").iterdir()] == [first.digest]


def test_of_two_writers_at_once_the_first_marker_counts(tmp_path: Path) -> None:
    mine = make_artifact(accuracy=0.9)

    publication = PromptStore(SlowPublisher(tmp_path / "store")).publish("bolts", KEY, mine)

    assert not publication.created
    assert publication.digest == digest_of(make_artifact(accuracy=0.7))


def test_a_writer_knows_its_own_marker(tmp_path: Path) -> None:
    assert PromptStore(LosesReply(tmp_path / "store")).publish("bolts", KEY, make_artifact()).created


def test_nothing_is_published_before_the_marker(tmp_path: Path) -> None:
    class DiesAtTheMarker(LocalObjects):
        def put_new(self, key: str, data: bytes) -> bool:
            if key.startswith("published/"):
                raise StoreError("gone")
            return super().put_new(key, data)

    with pytest.raises(StoreError):
        PromptStore(DiesAtTheMarker(tmp_path / "store")).publish("bolts", KEY, make_artifact())

    store = PromptStore(LocalObjects(tmp_path / "store"))
    assert store.published("bolts", KEY) is None
    assert store.publish("bolts", KEY, make_artifact()).created


def test_a_file_that_was_damaged_earlier_is_mended(store: PromptStore, tmp_path: Path) -> None:
    files = make_artifact()
    path = folder(tmp_path, digest_of(files)) / "README.md"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")

    store.publish("bolts", KEY, files)

    assert store.fetch(digest_of(files)) == files


@pytest.mark.parametrize("name", ["prompt.json", "prompt.safetensors", "record.json", "README.md"])
def test_a_changed_file_is_refused(name: str, store: PromptStore, tmp_path: Path) -> None:
    digest = store.publish("bolts", KEY, make_artifact()).digest
    path = folder(tmp_path, digest) / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(StoreError, match=rf"{name}.*damaged or changed"):
        store.fetch(digest)


def test_a_longer_file_is_refused(store: PromptStore, tmp_path: Path) -> None:
    digest = store.publish("bolts", KEY, make_artifact()).digest
    with (folder(tmp_path, digest) / "README.md").open("ab") as file:
        file.write(b"more")

    with pytest.raises(StoreError, match="expected at most"):
        store.fetch(digest)


def test_a_lost_file_is_missing(store: PromptStore, tmp_path: Path) -> None:
    digest = store.publish("bolts", KEY, make_artifact()).digest
    (folder(tmp_path, digest) / "record.json").unlink()

    with pytest.raises(ObjectMissing, match=r"record\.json"):
        store.fetch(digest)


def test_an_unknown_digest_is_missing(store: PromptStore) -> None:
    with pytest.raises(ObjectMissing):
        store.fetch(make_key("nothing"))


def make_held_out() -> HeldOut:
    return HeldOut(
        labels=("good", "bad"),
        paths=("a.png", "b.png"),
        digests=("0" * 32, "1" * 32),
        labels_B=(0, 1),
        logits_BC=((1.0, 0.0), (0.5, 0.25)),
        thumbnails={1: b"\xff\xd8\xff"},
        num_images=2,
    )


def test_held_out_answers_are_fetched_alone(objects: ObjectStore) -> None:
    store, held_out = PromptStore(objects), make_held_out()
    files = make_artifact(held_out=held_out.to_json())
    digest = store.publish("bolts", KEY, files).digest

    assert store.fetch(digest) == {name: files[name] for name in files if name != "held_out.json"}
    found = store.fetch_held_out(digest)
    assert found is not None
    assert vars(found) == vars(held_out)


def test_an_artifact_of_an_earlier_version_has_no_held_out_answers(store: PromptStore) -> None:
    assert store.fetch_held_out(store.publish("bolts", KEY, make_artifact()).digest) is None


def test_held_out_answers_that_are_lost_or_changed_do_not_disturb_serving(
    store: PromptStore, tmp_path: Path
) -> None:
    digest = store.publish("bolts", KEY, make_artifact(held_out=make_held_out().to_json())).digest
    path = folder(tmp_path, digest) / "held_out.json"
    path.write_bytes(path.read_bytes().replace(b"a.png", b"c.png"))

    assert len(store.fetch(digest)) == 4
    with pytest.raises(StoreError, match=r"held_out\.json.*damaged or changed"):
        store.fetch_held_out(digest)
    path.unlink()
    assert len(store.fetch(digest)) == 4
    with pytest.raises(ObjectMissing, match=r"held_out\.json"):
        store.fetch_held_out(digest)


@pytest.mark.parametrize(
    ("content", "message"), [(b"{}", "missing key"), (b" " * (9 << 20), "bytes, expected at most")]
)
def test_held_out_answers_that_are_none_are_refused(content: bytes, message: str, store: PromptStore) -> None:
    digest = store.publish("bolts", KEY, make_artifact(held_out=content)).digest

    with pytest.raises(StoreError, match=rf"held_out\.json: .*{message}"):
        store.fetch_held_out(digest)


def test_an_artifact_without_its_held_out_answers_is_not_published(store: PromptStore) -> None:
    files = make_artifact(held_out=make_held_out().to_json())
    del files["held_out.json"]

    with pytest.raises(StoreError, match=r"held_out\.json"):
        store.publish("bolts", KEY, files)


@pytest.mark.parametrize("digest", ["", "abc", "../../etc", "A" * 64])
def test_what_is_no_digest_is_refused(digest: str, store: PromptStore) -> None:
    with pytest.raises(StoreError, match="64 hex digits"):
        store.fetch(digest)


@pytest.mark.parametrize(
    "files",
    [
        {"../evil": {"sha256": make_key("x"), "bytes": 1}},
        {"prompt.json": {"sha256": make_key("x"), "bytes": 1}},
        {"big": {"sha256": make_key("x"), "bytes": 1 << 40}},
        {"negative": {"sha256": make_key("x"), "bytes": -1}},
        {"short": {"sha256": "abc", "bytes": 1}},
        {f"f{n}": {"sha256": make_key("x"), "bytes": 1} for n in range(100)},
        {"bare": 1},
        [],
    ],
)
def test_a_card_that_describes_what_no_artifact_has_is_refused(
    files: object, store: PromptStore, tmp_path: Path
) -> None:
    card = json.dumps({"files": files}).encode()
    digest = hashlib.sha256(card).hexdigest()
    folder(tmp_path, digest).mkdir(parents=True)
    (folder(tmp_path, digest) / "prompt.json").write_bytes(card)

    with pytest.raises(StoreError, match="files"):
        store.fetch(digest)


@pytest.mark.parametrize("change", [{"README.md": b"other"}, {"extra": b""}, {"prompt.json": b"{"}])
def test_files_that_do_not_agree_are_not_published(
    change: dict[str, bytes], store: PromptStore, tmp_path: Path
) -> None:
    with pytest.raises(StoreError):
        store.publish("bolts", KEY, make_artifact() | change)

    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("task", ["../x", "", "A", "a/b"])
def test_a_bad_task_name_is_refused_before_a_path_is_made(task: str, store: PromptStore) -> None:
    with pytest.raises(ManifestError):
        store.published(task, KEY)
    with pytest.raises(ManifestError):
        store.snapshots.save(task, KEY, b"")


@pytest.mark.parametrize("key", ["", "../x", "a/b", "a.json"])
def test_a_bad_task_key_is_refused(key: str, store: PromptStore) -> None:
    with pytest.raises(StoreError, match="task key"):
        store.snapshots.load("bolts", key)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"task": "bolts"}'])
def test_a_damaged_marker_is_named(content: bytes, store: PromptStore, tmp_path: Path) -> None:
    store.publish("bolts", KEY, make_artifact())
    marker = tmp_path / "store" / "published" / "bolts" / f"{KEY}.json"
    marker.write_bytes(content)

    with pytest.raises(StoreError, match=f"{KEY}.json: not a publication"):
        store.all_published()


def test_the_marker_of_another_task_is_named(store: PromptStore, tmp_path: Path) -> None:
    store.publish("bolts", KEY, make_artifact())
    published = tmp_path / "store" / "published"
    (published / "bolts").rename(published / "nuts")

    with pytest.raises(StoreError, match="publication of task 'bolts'"):
        store.published("nuts", KEY)


def test_only_wanted_publications_are_read(store: PromptStore) -> None:
    for task in ("a", "b", "c"):
        store.publish(task, KEY, make_artifact(task))

    found = store.find_published([("a", KEY), ("c", KEY), ("d", KEY)])

    assert sorted(task for task, _ in found) == ["a", "c"]


def test_a_store_that_was_moved_reads_right(store: PromptStore, tmp_path: Path) -> None:
    store.publish("bolts", KEY, make_artifact())
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    moved = PromptStore(open_objects(str(tmp_path / "elsewhere")))

    publication = moved.published("bolts", KEY)

    assert publication is not None
    assert publication.uri.startswith((tmp_path / "elsewhere").as_uri())


def test_publishing_makes_what_was_there_already_young(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "store")
    files = make_artifact()
    for name, content in files.items():
        objects.put(f"artifacts/{digest_of(files)}/{name}", content)
        os.utime(folder(tmp_path, digest_of(files)) / name, (0, 0))

    PromptStore(objects).publish("bolts", KEY, files)

    found = list(objects.scan("artifacts/"))
    assert len(found) == len(files)
    assert all(one.modified_s > 0 for one in found)


def test_what_a_sweep_took_before_the_marker_is_written_again(tmp_path: Path) -> None:
    class Swept(LocalObjects):
        def put_new(self, key: str, data: bytes) -> bool:
            if key.startswith("published/"):
                for found in list(self.list("artifacts/")):
                    self.delete(found)
            return super().put_new(key, data)

    publication = PromptStore(Swept(tmp_path / "store")).publish("bolts", KEY, make_artifact())

    assert PromptStore(LocalObjects(tmp_path / "store")).fetch(publication.digest) == make_artifact()


def test_publishing_drops_the_snapshot(store: PromptStore) -> None:
    store.snapshots.save("bolts", KEY, b"state")

    store.publish("bolts", KEY, make_artifact())

    assert store.snapshots.load("bolts", KEY) is None


def test_the_catalog_changes_hands_by_etag(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    first = Catalog(entries={})
    second = Catalog(entries={"bolts": CatalogEntry(version=1, digest=KEY)})

    assert store.read_catalog() is None
    etag = store.write_catalog(first, None)
    assert store.read_catalog() == (first, etag)
    newer = store.write_catalog(second, etag)
    assert store.read_catalog() == (second, newer)
    with pytest.raises(ObjectConflict):
        store.write_catalog(first, etag)
    with pytest.raises(ObjectConflict):
        store.write_catalog(first, None)


def test_a_catalog_that_is_looked_at_again_and_again_is_read_out_once(objects: ObjectStore) -> None:
    store, writer = PromptStore(objects), PromptStore(objects)
    etag = writer.write_catalog(Catalog(entries={}), if_match=None)
    first, again = store.read_catalog(), store.read_catalog()
    assert first is not None
    assert again is not None
    assert again[0] is first[0]
    changed = Catalog(entries={"bolts": CatalogEntry(version=1, digest="0" * 64)})
    writer.write_catalog(changed, if_match=etag)
    found = store.read_catalog()
    assert found is not None
    assert found[0] == changed


def test_a_first_catalog_that_was_replaced_at_once_is_a_conflict(tmp_path: Path) -> None:
    theirs = Catalog(entries={"bolts": CatalogEntry(version=1, digest=KEY)})

    class Replaced(LocalObjects):
        def put_new(self, key: str, data: bytes) -> bool:
            made = super().put_new(key, data)
            self.put(key, theirs.to_bytes())
            return made

    with pytest.raises(ObjectConflict, match="read it again"):
        PromptStore(Replaced(tmp_path / "store")).write_catalog(Catalog(entries={}), None)
