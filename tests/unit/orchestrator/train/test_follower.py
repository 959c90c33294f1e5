"""The driver's loop, with a real ledger and a pool that is stepped by the test."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ExecutionError
from orchestrator.settings import Settings
from orchestrator.train.executor import Callbacks, Follower, RunOptions, RunSummary, run_tasks
from orchestrator.train.ledger.grants import Lease, LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.run.files import RunRequest
from tests.unit.orchestrator.train.fakes import Clock, Spec


class LocalLedger(Ledger):
    """Polled as the actor is."""

    since = 0

    def poll(self):
        events, self.since = self.read(self.since)
        return events, self.status()


class ScriptedPool:
    """Does one thing each time the driver looks at it."""

    def __init__(self, *acts: Callable[[], object], error: Exception | None = None) -> None:
        self.acts = list(acts)
        self.error = error
        self.waited = 0

    @property
    def is_running(self) -> bool:
        if not self.acts:
            return False
        self.acts.pop(0)()
        return True

    def wait(self, timeout_s: float) -> bool:
        self.waited += 1
        while self.acts:
            self.acts.pop(0)()
        return True


class Scene:
    def __init__(self, *names: str) -> None:
        self.ledger = LocalLedger([Spec(name) for name in names], LedgerPolicy(), Clock())
        self.events, self.statuses = [], []
        self.interruption = threading.Event()

    def complete_one(self) -> None:
        grant = self.ledger.lease("w")
        assert isinstance(grant, Lease)
        self.ledger.complete("w", grant.spec.name, grant.attempt, {})

    def follow(self, pool: ScriptedPool, **callbacks: Callable[..., object]) -> RunSummary:
        follower = Follower(
            self.ledger,
            pool,
            Callbacks(**{"on_events": self.events.extend, "on_progress": self.statuses.append, **callbacks}),
            poll_s=0.0,
        )
        return follower.follow(self.interruption)


def test_passes_on_everything_until_all_have_ended() -> None:
    scene = Scene("a", "b")
    pool = ScriptedPool(lambda: None, scene.complete_one, scene.complete_one)
    summary = scene.follow(pool)
    assert summary.done == ("a", "b")
    assert (summary.failed, summary.unfinished, summary.is_interrupted) == ({}, (), False)
    assert [event.kind for event in scene.events] == ["leased", "published"] * 2
    assert len(scene.statuses) >= 3
    assert pool.waited == 1


def test_an_interruption_drains_and_leaves_the_rest() -> None:
    scene = Scene("a", "b", "c")
    summary = scene.follow(
        ScriptedPool(scene.complete_one, scene.interruption.set, lambda: scene.ledger.lease("w"))
    )
    assert summary.is_interrupted
    assert summary.done == ("a",)
    assert summary.unfinished == ("b", "c")


def test_requests_are_granted_and_answered() -> None:
    scene = Scene("a", "b", "c")
    asked = [
        RunRequest(kind="cancel", tasks=("b", "unknown")),
        RunRequest(kind="retry"),
        RunRequest(kind="stop"),
    ]
    answers = []

    def requests():
        if asked:
            yield asked.pop(0), answers.append

    pool = ScriptedPool(*[lambda: None] * 5)
    summary = scene.follow(pool, requests=requests)
    assert answers == [["b"], ["b"], ()]
    assert summary.is_interrupted
    assert [event.kind for event in scene.events] == ["cancelled", "retried"]


class BusyLedger(LocalLedger):
    """Something has happened whenever the driver looks."""

    def poll(self):
        grant = self.lease("w")
        if isinstance(grant, Lease):
            self.complete("w", grant.spec.name, grant.attempt, {})
        return super().poll()


def test_a_run_in_which_something_always_happens_is_shown_and_can_be_stopped() -> None:
    ledger = BusyLedger([Spec(f"t{number}") for number in range(50)], LedgerPolicy(), Clock())
    statuses, asked = [], [RunRequest(kind="stop")]

    def requests():
        if len(statuses) >= 3 and asked:
            yield asked.pop(), lambda tasks: None

    pool = ScriptedPool(*[lambda: None] * 60)
    callbacks = Callbacks(on_progress=statuses.append, requests=requests)
    summary = Follower(ledger, pool, callbacks, poll_s=0.0).follow(threading.Event())
    assert [run_status.counts()["done"] for run_status in statuses[:3]] == [1, 2, 3]
    assert summary.is_interrupted
    assert len(summary.done) == 3


def test_a_run_whose_last_tasks_are_cancelled_is_over() -> None:
    scene = Scene("a", "b")
    asked = [RunRequest(kind="cancel")]

    def requests():
        if asked:
            yield asked.pop(), lambda tasks: None

    pool = ScriptedPool(scene.complete_one, *[lambda: None] * 3)
    summary = scene.follow(pool, requests=requests)
    assert (summary.done, summary.cancelled, summary.unfinished) == (("a",), ("b",), ())
    assert not summary.is_interrupted


def test_an_interruption_after_the_last_task_is_none() -> None:
    scene = Scene("a")
    scene.interruption.set()
    assert not scene.follow(ScriptedPool(scene.complete_one)).is_interrupted


def test_a_pool_that_ends_early_is_an_error_with_its_cause() -> None:
    scene = Scene("a", "b")
    with pytest.raises(ExecutionError, match=r"1 of 2 tasks left: no room; .*run the same command to resume"):
        scene.follow(ScriptedPool(scene.complete_one, error=RuntimeError("no room")))
    assert [event.kind for event in scene.events] == ["leased", "published"]


def test_a_pool_that_dies_before_it_takes_up_work_is_given_up() -> None:
    scene = Scene("a")

    names = itertools.count()

    def die() -> None:
        scene.ledger.join(f"w{next(names)}", 0, 1)
        scene.ledger.crashed(0, "no module named ship")

    with pytest.raises(ExecutionError, match=r"died 6 times .* no module named ship"):
        scene.follow(ScriptedPool(*[die] * 10))


def test_what_a_listener_raises_ends_the_run_cleanly() -> None:
    scene = Scene("a", "b")
    pool = ScriptedPool(scene.complete_one)

    def listen(events) -> None:
        raise ValueError("disk full")

    with pytest.raises(ValueError, match="disk full"):
        scene.follow(pool, on_events=listen)
    assert pool.waited == 1


def test_nothing_to_do_needs_no_ray(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", store="s", tracking_uri="t", ray_address="nowhere:1")
    summary = run_tasks([], None, settings, RunOptions(), Callbacks())
    assert summary.tasks == ()
    assert not (tmp_path / "home").exists()
