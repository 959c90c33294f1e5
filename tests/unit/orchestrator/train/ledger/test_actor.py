"""The driver's end of the ledger's actor, with a fake of the actor; the actor itself needs a Ray."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from orchestrator.tracing import begin
from orchestrator.train.ledger.actor import RayLedger
from orchestrator.train.ledger.grants import Ended, Lease, LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from tests.unit.orchestrator.spans import Spans
from tests.unit.orchestrator.train.fakes import Clock, Spec


class Actor:
    """Answers as ``LedgerActor`` does, and keeps what it was asked and what it said."""

    def __init__(self) -> None:
        self.ledger: Ledger | None = None
        self.asked: list[int | None] = []
        self.num_sent: list[int] = []
        methods = (self._load, self._poll, self._call, lambda: "pending")
        self.load, self.poll, self.call, self.never = (SimpleNamespace(remote=call) for call in methods)

    def _load(
        self, specs: Any, policy: Any, earlier: Any, num_lost: int, driver: Any, release: Any, trace: Any
    ) -> Callable[[], bool]:
        assert driver == ["pending"], "each actor has an answer of its own to wait for"
        assert release is do_nothing
        self.ledger = Ledger(specs, policy, Clock(), earlier, num_lost, trace=trace)
        return lambda: True

    def _poll(self, since: int | None) -> Callable[[], Any]:
        self.asked.append(since)
        if self.ledger is None:
            return lambda: None
        events, following = self.ledger.read(since or 0)
        run_status = self.ledger.status(since)
        self.num_sent.append(len(run_status.tasks))
        return lambda: (events, following, run_status)

    def _call(self, method: str, *args: Any) -> Callable[[], Any]:
        if self.ledger is None:
            return lambda: None
        answer = getattr(self.ledger, method)(*args)
        return lambda: ("incarnation", answer)


def do_nothing() -> None:
    """There is nothing to release."""


def make_driver(actor: Actor) -> RayLedger:
    specs = [Spec(name) for name in "abc"]
    return RayLedger(actor, specs, LedgerPolicy(), do_nothing, get=lambda answer: answer())


def test_while_nothing_happens_no_task_is_told_of_twice() -> None:
    actor = Actor()
    driver = make_driver(actor)

    seen = [driver.poll() for _ in range(3)]
    assert actor.ledger is not None
    actor.ledger.lease("w")
    events, last = driver.poll()

    assert actor.num_sent == [3, 0, 0, 1]
    assert all(not events and run_status.counts() == {"pending": 3} for events, run_status in seen)
    assert [event.kind for event in events] == ["leased"]
    assert last.counts() == {"pending": 2, "leased": 1}


def test_a_ledger_that_was_lost_is_filled_with_what_was_seen_last() -> None:
    actor = Actor()
    driver = make_driver(actor)
    assert actor.ledger is not None
    actor.ledger.lease("w")
    driver.poll()
    actor.ledger = None

    _, run_status = driver.poll()

    assert run_status.counts() == {"pending": 2, "leased": 1}
    assert actor.asked[-1] is None, "all tasks are asked for again"


def test_a_ledger_that_was_lost_before_a_request_is_filled_for_it() -> None:
    actor = Actor()
    driver = make_driver(actor)
    driver.poll()
    actor.ledger = None

    assert driver.cancel(["a"]) == ["a"]

    assert driver.poll()[1].counts() == {"pending": 2, "cancelled": 1}
    actor.ledger = None
    driver.close()
    assert isinstance(actor.ledger, Ledger)
    assert isinstance(actor.ledger.lease("w"), Ended)


def test_the_processes_of_ledger_and_controller_do_without_torch() -> None:
    code = (
        "import sys, orchestrator.train.ledger.actor, orchestrator.train.pool.crashes;"
        "import orchestrator.planning.spec;"
        "print([m for m in ('torch', 'timm', 'sklearn', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "they would take seconds longer to start, and 300 MiB more"


def test_a_lease_names_the_span_of_a_driver_that_is_traced_after_a_restart_too() -> None:
    spans, actor = Spans(), Actor()
    with begin(spans.tracer, "ship tune", None) as tune:
        driver = make_driver(actor)
    for _ in range(2):
        driver.poll()
        assert actor.ledger is not None
        lease = actor.ledger.lease("w")
        assert isinstance(lease, Lease)
        assert lease.trace == tune.traceparent
        actor.ledger = None
    make_driver(actor)
    assert actor.ledger.lease("w").trace is None
