"""An object that has not changed is not read again, and one that has changed always is."""

import os
from pathlib import Path

import pytest

from orchestrator.store.objects.fsspec_objects import FsspecObjects
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.protocol import StoredObject
from orchestrator.store.objects.stamps import Stamps

A, B = (1, 2, 3, 4, 5), (1, 2, 3, 4, 6)


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 10.0

    def __call__(self) -> float:
        return self.now_s


def test_a_stamp_is_trusted_once_its_file_was_read_a_while_after_it_was_seen() -> None:
    clock = Clock()
    stamps = Stamps(clock)
    stamps.note("catalog.json", A, "x")
    clock.now_s += 60.0
    assert not stamps.has("catalog.json", A, "x"), (
        "it may have been written again within the grain of its time"
    )
    stamps.note("catalog.json", A, "x")
    assert stamps.has("catalog.json", A, "x")
    assert not stamps.has("catalog.json", A, "y")
    assert not stamps.has("catalog.json", B, "x")
    assert not stamps.has("tokens.json", A, "x")
    stamps.note("catalog.json", B, "x")
    assert not stamps.has("catalog.json", B, "x")


class Counted(LocalObjects):
    """Counts the reads of content."""

    num_reads = 0

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self.num_reads += 1
        return super().get(key, max_bytes=max_bytes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def local(tmp_path: Path, clock: Clock) -> Counted:
    return Counted(tmp_path, clock)


def test_an_unchanged_file_is_read_twice_and_then_never_again(local: Counted, clock: Clock) -> None:
    etag = local.put("catalog.json", b"one")
    for _ in range(10):
        clock.now_s += 1.0
        assert local.get_unless("catalog.json", etag) is None
    assert local.num_reads == 4, "until the stamp is three seconds old"
    other = local.put("catalog.json", b"two")
    assert local.get_unless("catalog.json", etag) == StoredObject(data=b"two", etag=other)


def test_a_file_that_was_edited_in_place_is_read(local: Counted, clock: Clock, tmp_path: Path) -> None:
    etag = local.put("catalog.json", b"one")
    for _ in range(2):
        assert local.get_unless("catalog.json", etag) is None
        clock.now_s += 5.0
    path = tmp_path / "catalog.json"
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(b"two")
        # The time of the change of its content is put back; that of its status cannot be.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = local.get_unless("catalog.json", etag)
    assert found is not None
    assert found.data == b"two"


class Tagged:
    """A driver that has an ETag for each object, and counts what is downloaded."""

    protocol = "memory"

    def __init__(self) -> None:
        self.content, self.num_downloads = b"one", 0

    def invalidate_cache(self) -> None:
        pass

    def info(self, path: str) -> dict[str, object]:
        return {"size": len(self.content), "ETag": f"etag of {self.content!r}"}

    def cat_file(self, path: str) -> bytes:
        self.num_downloads += 1
        return self.content


def test_a_drivers_tag_saves_the_download() -> None:
    objects, driver = FsspecObjects("memory://tagged"), Tagged()
    objects._fs = driver
    etag = objects.get("catalog.json").etag
    for _ in range(5):
        assert objects.get_unless("catalog.json", etag) is None
    assert driver.num_downloads == 2, "once to know the etag, once to know the tag that goes with it"
    driver.content = b"two"
    found = objects.get_unless("catalog.json", etag)
    assert found is not None
    assert found.data == b"two"
    assert objects.get_unless("catalog.json", found.etag) is None
    assert driver.num_downloads == 3
