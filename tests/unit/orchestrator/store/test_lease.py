"""A lease of the store has one holder, and is taken over from one that does not renew it."""

from orchestrator.store.lease import LEASE_S, StoreLease
from orchestrator.store.objects.local import LocalObjects


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_one_process_holds_it_at_a_time(tmp_path):
    clock = Clock()
    first, second = (StoreLease(LocalObjects(tmp_path), "recorder.json", clock) for _ in range(2))
    assert first.acquire()
    assert not second.acquire()
    assert first.acquire(), "it is renewed"
    first.release()
    assert second.acquire()
    assert not first.acquire()


def test_a_holder_that_renews_keeps_it_for_any_time(tmp_path):
    clock = Clock()
    first, second = (StoreLease(LocalObjects(tmp_path), "recorder.json", clock) for _ in range(2))
    first.acquire()
    for _ in range(20):
        clock.now_s += LEASE_S / 2
        assert first.acquire()
        assert not second.acquire()


def test_one_that_is_not_renewed_is_taken_over_after_it_was_watched_for_a_minute(tmp_path):
    ahead, clock = Clock(), Clock()
    first = StoreLease(LocalObjects(tmp_path), "recorder.json", clock)
    second = StoreLease(LocalObjects(tmp_path), "recorder.json", ahead)
    first.acquire()
    ahead.now_s = 1e9
    assert not second.acquire(), "another clock says nothing"
    ahead.now_s += LEASE_S
    assert second.acquire()
    clock.now_s += LEASE_S
    assert not first.acquire(), "it was paused, and notices"
    first.release()
    assert second.acquire()


def test_one_that_is_damaged_is_written_anew(tmp_path):
    LocalObjects(tmp_path).put("recorder.json", b"\x00")
    assert StoreLease(LocalObjects(tmp_path), "recorder.json", Clock()).acquire()
