import threading
from collections.abc import Callable, Iterator

import pytest

from orchestrator.errors import ExecutionError, StoreError
from orchestrator.train.ledger.grants import Ended, LedgerPolicy, StallLimits
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.worker.loop import Hooks, PublishedTask, run_worker
from ship.errors import DataError
from tests.unit.orchestrator.train.fakes import Clock, Spec, epoch, work

RUNS_LONGER_THAN_ANY_TEST_S = 4_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_ledger(clock: Clock, *names: str, **policy: float) -> Ledger:
    settings = LedgerPolicy(lease_s=RUNS_LONGER_THAN_ANY_TEST_S, **policy)
    return Ledger([Spec(name, num_images=1000 - n) for n, name in enumerate(names)], settings, clock)


def states(ledger: Ledger) -> dict[str, str]:
    return {status.task: status.state for status in ledger.status().tasks}


def publish(spec: Spec, hooks: Hooks) -> PublishedTask:
    hooks.epoch(epoch(1, of=1))
    return PublishedTask(digest=f"digest of {spec.name}", uri="file:///x", metrics={"accuracy": 0.5})


def test_works_until_nothing_is_left(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c")
    assert work(ledger, publish) == 3
    published = [event for event in ledger.read(0)[0] if event.kind == "published"]
    assert [event.task for event in published] == ["a", "b", "c"]
    assert published[0].data == {
        "digest": "digest of a",
        "uri": "file:///x",
        "metrics": {"accuracy": 0.5},
        "created": True,
    }


def test_a_failing_task_stops_no_other(clock: Clock) -> None:
    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        if spec.name == "bad":
            raise DataError("a.png: not an image")
        return publish(spec, hooks)

    ledger = make_ledger(clock, "bad", "good")
    assert work(ledger, run) == 1
    assert states(ledger) == {"bad": "failed", "good": "done"}
    assert ledger.status().tasks[0].cause == "a.png: not an image"


def test_waits_out_the_pause_of_a_task_that_may_do_better(clock: Clock) -> None:
    tries = []

    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        tries.append(clock.now_s)
        if len(tries) < 3:
            raise StoreError("away")
        return publish(spec, hooks)

    ledger = make_ledger(clock, "a", backoff_s=2, wait_s=0.5)
    assert work(ledger, run, sleep=clock.advance) == 1
    assert tries == [1_000.0, 1_002.0, 1_006.0]


def test_what_is_not_an_error_of_ours_fails_the_task_with_its_traceback(clock: Clock) -> None:
    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        raise ZeroDivisionError("steps per epoch")

    ledger = make_ledger(clock, "a", max_attempts=2)
    assert work(ledger, run, sleep=clock.advance) == 0
    event = ledger.read(0)[0][-1]
    assert event.kind == "failed"
    assert event.data["cause"] == "ZeroDivisionError: steps per epoch (failed 2 times)"
    assert "test_loop.py" in event.data["detail"]


def test_a_lost_lease_is_dropped_without_a_word(clock: Clock) -> None:
    seen = []

    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        seen.append(spec.name)
        if seen == ["a"]:
            clock.advance(RUNS_LONGER_THAN_ANY_TEST_S + 1)
            other = ledger.lease("other")
            hooks.epoch(epoch(1))
            raise AssertionError(f"went on although {other} has the task")
        return publish(spec, hooks)

    ledger = make_ledger(clock, "a", "b")
    done = work(ledger, run, sleep=lambda seconds: ledger.complete("other", "a", 2, {}))
    assert done == 1
    assert seen == ["a", "b"]
    assert [e.kind for e in ledger.read(0)[0] if e.task == "a"] == [
        "leased",
        "retried",
        "leased",
        "published",
    ]


def test_completing_too_late_does_not_count(clock: Clock) -> None:
    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        clock.advance(RUNS_LONGER_THAN_ANY_TEST_S + 1)
        return PublishedTask(digest="d", uri="u")

    ledger = make_ledger(clock, "a", max_losses=1)
    assert work(ledger, run) == 0


def test_a_poisoned_worker_reports_the_task_and_ends(clock: Clock) -> None:
    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    ledger = make_ledger(clock, "a")
    with pytest.raises(ExecutionError, match="device is unusable"):
        work(ledger, run)
    assert ledger.status().tasks[0].failures == 1


def test_a_ledger_out_of_reach_ends_the_worker_and_fails_no_task(clock: Clock) -> None:
    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        raise ExecutionError("the ledger did not answer")

    ledger = make_ledger(clock, "a")
    with pytest.raises(ExecutionError):
        work(ledger, run)
    assert ledger.status().tasks[0].failures == 0


def test_a_task_that_has_started_makes_way_for_the_next(clock: Clock) -> None:
    together = threading.Barrier(3, timeout=30)

    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        hooks.started()
        if spec.name in "abc":
            together.wait()
        if spec.name == "b":
            raise DataError("b.png: not an image")
        return publish(spec, hooks)

    ledger = make_ledger(clock, *"abcdef")
    assert work(ledger, run) == 5
    assert states(ledger) == {**dict.fromkeys("acdef", "done"), "b": "failed"}


def test_a_task_that_is_still_loading_is_alone(clock: Clock) -> None:
    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        assert [name for name, state in states(ledger).items() if state == "leased"] == [spec.name]
        return publish(spec, hooks)

    ledger = make_ledger(clock, *"abc")
    assert work(ledger, run) == 3


def test_a_worker_that_must_leave_waits_for_no_task(clock: Clock) -> None:
    may_end, ended = threading.Event(), threading.Event()

    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        if spec.name == "slow":
            hooks.started()
            assert may_end.wait(30)
            ended.set()
            return publish(spec, hooks)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    ledger = make_ledger(clock, "slow", "bad", "more")
    with pytest.raises(ExecutionError, match="device is unusable"):
        work(ledger, run)
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(30)


class SharpLedger:
    """Takes every heartbeat until it is told to refuse them; lets a test wait for them."""

    def __init__(self, inner: Ledger) -> None:
        self.inner = inner
        self.refuses = threading.Event()
        self.refused = threading.Event()
        self.beaten = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Callable[..., object]:
        return getattr(self.inner, name)

    def heartbeat(self, *args: object) -> bool:
        if self.refuses.is_set():
            self.refused.set()
            return False
        self.beaten.release()
        return True


def heartbeats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lease-heartbeat"]


def test_heartbeats_go_on_while_a_task_is_silent_and_end_with_it(clock: Clock) -> None:
    inner = Ledger([Spec("a")], LedgerPolicy(lease_s=0.04), clock)
    ledger = SharpLedger(inner)

    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        for _ in range(3):
            assert ledger.beaten.acquire(timeout=30)
        assert len(heartbeats()) == 1
        return PublishedTask(digest="d", uri="u")

    assert work(ledger, run) == 1
    assert heartbeats() == []


def test_a_lease_that_heartbeats_found_lost_is_noticed_before_publishing(clock: Clock) -> None:
    ledger = SharpLedger(Ledger([Spec("a")], LedgerPolicy(lease_s=0.04), clock))
    published = []

    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        hooks.check()
        ledger.refuses.set()
        assert ledger.refused.wait(30)
        for thread in heartbeats():
            thread.join(30)
        ledger.inner.close()
        hooks.check()
        published.append(spec.name)
        return PublishedTask(digest="d", uri="u")

    assert work(ledger, run) == 0
    assert published == []


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """A server that says nothing until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_worker_whose_task_gets_no_further_leaves_and_says_where_it_stands(
    clock: Clock, silence: threading.Event
) -> None:
    def hang(spec: Spec, hooks: Hooks) -> PublishedTask:
        hooks.enter("data")
        with hooks.doing("s3://user:secret@host/bucket/a.png?signature=secret"):
            silence.wait(30)
        raise AssertionError("never read")

    policy = LedgerPolicy(lease_s=0.04, stall=StallLimits(data_s=0.1), backoff_s=0)
    ledger = Ledger([Spec("a")], policy, clock)
    ledger.join("w", 0, 1)
    with pytest.raises(ExecutionError, match=r"task 'a' made no progress for .* s while reading its data"):
        work(ledger, hang)
    [seen] = ledger.status().tasks
    assert (seen.state, seen.failures, seen.losses) == ("pending", 1, 0)
    assert "(s3://host/bucket/a.png)" in seen.cause
    assert "secret" not in seen.cause
    assert isinstance(ledger.lease("w"), Ended), "it has left"

    ledger.crashed(0, "it was killed by its pool")
    assert ledger.status().tasks[0].failures == 1, "its end is no second failure"
    ledger.join("v", 0, 1)
    assert run_worker(ledger, publish, worker="v", sleep=lambda _: ledger.close()) == 1


def test_a_cancelled_task_that_hangs_in_a_read_holds_up_nothing(
    clock: Clock, silence: threading.Event
) -> None:
    ledger = Ledger([Spec("hung", num_images=1000), Spec("next")], LedgerPolicy(lease_s=0.04), clock)

    def run(spec: Spec, hooks: Hooks) -> PublishedTask:
        if spec.name == "hung":
            ledger.cancel(["hung"])
            silence.wait(30)
            hooks.check()
            raise AssertionError("went on without its lease")
        return publish(spec, hooks)

    assert work(ledger, run) == 1
    assert states(ledger) == {"hung": "cancelled", "next": "done"}
