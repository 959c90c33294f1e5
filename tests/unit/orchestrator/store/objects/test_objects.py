"""One battery of tests for all kinds of stores."""

import pickle
import time

import pytest

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.objects.open import ObjectStore, open_objects

BAD_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../b",
    ".",
    "a/.b",
    "a\\b",
    "a\0b",
    "a b",
    "ä",
    "-a",
    "x" * 1000,
]


def test_what_is_put_is_read_back(objects: ObjectStore) -> None:
    etag = objects.put("a/b.json", b"one")

    stored = objects.get("a/b.json")

    assert stored.data == b"one"
    assert stored.etag == etag
    assert objects.exists("a/b.json")


def test_an_empty_object_is_an_object(objects: ObjectStore) -> None:
    assert objects.put_new("empty", b"")

    assert objects.get("empty").data == b""
    assert list(objects.list("")) == ["empty"]


def test_a_new_object_is_written_once(objects: ObjectStore) -> None:
    assert objects.put_new("k", b"first")
    assert not objects.put_new("k", b"second")

    assert objects.get("k").data == b"first"


def test_put_overwrites(objects: ObjectStore) -> None:
    first = objects.put("k", b"1")
    second = objects.put("k", b"2")

    assert objects.get("k").data == b"2"
    assert first != second


def test_what_is_known_is_not_read_again(objects: ObjectStore) -> None:
    etag = objects.put("a/b", b"one")
    assert objects.get_unless("a/b", etag) is None
    newer = objects.put("a/b", b"two")
    changed = objects.get_unless("a/b", etag, max_bytes=3)
    assert changed is not None
    assert (changed.data, changed.etag) == (b"two", newer)
    with pytest.raises(StoreError, match="at most"):
        objects.get_unless("a/b", etag, max_bytes=2)
    with pytest.raises(ObjectMissing):
        objects.get_unless("a/c", etag)


def test_a_guarded_put_replaces_what_it_read(objects: ObjectStore) -> None:
    etag = objects.put("k", b"1")

    objects.put("k", b"2", if_match=etag)

    assert objects.get("k").data == b"2"


def test_a_guarded_put_loses_against_another_writer(objects: ObjectStore) -> None:
    etag = objects.put("k", b"1")
    objects.put("k", b"2")

    with pytest.raises(ObjectConflict, match="read it again"):
        objects.put("k", b"3", if_match=etag)

    assert objects.get("k").data == b"2"


def test_a_guarded_put_of_nothing_is_a_conflict(objects: ObjectStore) -> None:
    with pytest.raises(ObjectConflict):
        objects.put("k", b"1", if_match='"abc"')

    assert not objects.exists("k")


def test_a_missing_object_is_missing(objects: ObjectStore) -> None:
    objects.put("a/b", b"x")

    for key in ("nothing", "a", "a/b/c"):
        with pytest.raises(ObjectMissing, match=f"{key}: no such object"):
            objects.get(key)
        assert not objects.exists(key)


def test_listing_is_by_prefix_and_in_order(objects: ObjectStore) -> None:
    for key in ("b/2", "a/x/1", "a/y", "ab", "b/1"):
        objects.put(key, b"")

    assert list(objects.list("")) == ["a/x/1", "a/y", "ab", "b/1", "b/2"]
    assert list(objects.list("a/")) == ["a/x/1", "a/y"]
    assert list(objects.list("a")) == ["a/x/1", "a/y", "ab"]
    assert list(objects.list("b/1")) == ["b/1"]
    assert list(objects.list("none/")) == []


def test_a_scan_has_sizes_and_times(objects: ObjectStore) -> None:
    before_s = time.time()
    objects.put("a/1", b"12345")
    objects.put("a/2", b"")
    objects.put("b", b"1")

    found = list(objects.scan("a/"))

    assert [(one.key, one.num_bytes) for one in found] == [("a/1", 5), ("a/2", 0)]
    # S3 gives whole seconds, file systems the time of their last tick.
    assert all(before_s - 2 < one.modified_s < time.time() + 2 for one in found)


def test_a_store_leaves_no_temporary_objects(objects: ObjectStore) -> None:
    objects.put("a/1", b"1")
    objects.put_new("a/1", b"2")
    objects.put_new("a/2", b"2")

    assert list(objects.leftovers()) == []


def test_only_temporary_objects_are_dropped_as_such(objects: ObjectStore) -> None:
    objects.put("a/1", b"1")

    with pytest.raises(StoreError, match="it stays"):
        objects.drop_leftover("a/1")

    assert objects.exists("a/1")


def test_a_store_that_was_never_written_is_empty(objects: ObjectStore) -> None:
    assert list(objects.list("")) == []


def test_delete_forgets_and_may_be_repeated(objects: ObjectStore) -> None:
    objects.put("a/k", b"x")

    objects.delete("a/k")
    objects.delete("a/k")

    assert not objects.exists("a/k")
    assert list(objects.list("a/")) == []


def test_an_object_that_is_too_large_is_not_read(objects: ObjectStore) -> None:
    objects.put("k", b"12345")

    assert objects.get("k", max_bytes=5).data == b"12345"
    with pytest.raises(StoreError, match="5 bytes, expected at most 4"):
        objects.get("k", max_bytes=4)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_what_is_no_key_is_refused_everywhere(key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    objects = open_objects(str(tmp_path_factory.getbasetemp() / "never"))
    calls = [
        objects.get,
        objects.exists,
        objects.delete,
        lambda k: objects.put_new(k, b""),
        lambda k: objects.put(k, b""),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="store key"):
            call(key)
    assert not (tmp_path_factory.getbasetemp() / "never").exists()


def test_a_store_travels_between_processes(objects: ObjectStore) -> None:
    objects.put("k", b"x")

    there = pickle.loads(pickle.dumps(objects))

    assert there.url == objects.url
    assert there.get("k").data == b"x"


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(StoreError, match="foo://somewhere"):
        open_objects("foo://somewhere")


def test_no_url_shows_credentials() -> None:
    assert open_objects("s3://user:secret@bucket/prefix/").url == "s3://bucket/prefix"


@pytest.mark.parametrize("url", ["", "s3://", "s3:///x", "a\0b"])
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(StoreError):
        open_objects(url)
