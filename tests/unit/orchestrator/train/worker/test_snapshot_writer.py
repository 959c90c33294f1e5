"""Snapshots are written beside the work: the newest counts, errors arrive, nothing is left at the end."""

import threading

import pytest

from orchestrator.errors import StoreFull
from orchestrator.train.worker.snapshot_writer import SnapshotWriter

PATIENCE_S = 30.0


class Store:
    """Keeps what is written, once it is let."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.asked = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.error: Exception | None = None

    def save(self, content: bytes) -> None:
        self.asked.release()
        assert self.open.acquire(timeout=PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.written.append(content)


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_slow_store_holds_up_no_step_and_gets_the_newest(store: Store):
    def scene() -> None:
        with SnapshotWriter(store.save) as writer:
            writer.put(b"1")
            assert store.asked.acquire(timeout=PATIENCE_S)
            for content in (b"2", b"3", b"4"):
                writer.put(content)
            assert store.written == []
            store.open.release(2)
            raise KeyError

    with pytest.raises(KeyError):
        scene()
    assert store.written == [b"1", b"4"]


def test_after_success_only_what_is_under_way_is_finished(store: Store):
    with SnapshotWriter(store.save) as writer:
        writer.put(b"1")
        assert store.asked.acquire(timeout=PATIENCE_S)
        writer.put(b"2")
        threading.Timer(0.05, store.open.release, [2]).start()
    assert store.written == [b"1"]
    assert not any(thread.name.startswith("ship-snapshot") for thread in threading.enumerate())


def test_one_after_another_all_are_written(store: Store):
    with SnapshotWriter(store.save) as writer:
        for content in (b"1", b"2", b"3"):
            writer.put(content)
            assert store.asked.acquire(timeout=PATIENCE_S)
            store.open.release()
    assert store.written == [b"1", b"2", b"3"]


def test_what_went_wrong_is_told_with_the_next_one(store: Store):
    store.error = StoreFull("no space left")
    store.open.release(9)

    def scene() -> None:
        with SnapshotWriter(store.save) as writer:
            for _ in range(1_000_000):
                writer.put(b"1")

    with pytest.raises(StoreFull, match="no space"):
        scene()
    assert store.written == []


def test_what_went_wrong_with_the_last_one_is_told_at_the_end(store: Store):
    store.error = StoreFull("no space left")
    store.open.release()

    def scene() -> None:
        with SnapshotWriter(store.save) as writer:
            writer.put(b"1")
            assert store.asked.acquire(timeout=PATIENCE_S)

    with pytest.raises(StoreFull, match="no space"):
        scene()
