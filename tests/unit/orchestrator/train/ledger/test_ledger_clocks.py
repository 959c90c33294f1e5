"""Leases and pauses by a monotonic clock, and tasks that make no progress."""

from orchestrator.train.ledger.grants import Ended, Lease, LedgerPolicy, Wait
from orchestrator.train.ledger.ledger import Ledger
from tests.unit.orchestrator.train.fakes import LATER, Clock, Spec, make_ledger, status, take


def test_a_step_of_the_wall_clock_moves_no_lease_and_no_pause(clock: Clock) -> None:
    wall = Clock()
    ledger = Ledger(
        [Spec("a"), Spec("b", num_images=50)], LedgerPolicy(lease_s=60, backoff_s=10), clock, wall=wall
    )
    take(ledger, "w1")
    ledger.fail("w2", take(ledger, "w2").spec.name, 1, LATER)

    wall.advance(3_600)
    assert ledger.heartbeat("w1", "a", 1), "set ahead: no lease has run out"
    assert isinstance(ledger.lease("w2"), Wait), "and no pause is over"
    wall.advance(-7_200)
    clock.advance(10)
    assert take(ledger, "w2").spec.name == "b", "set back: a pause is as long as it was"
    clock.advance(51)
    assert status(ledger, "a").state == "pending", "and a dead worker's task is free in time"


def test_a_pause_is_no_longer_with_a_ledger_whose_clock_stands_elsewhere(clock: Clock) -> None:
    old = make_ledger(clock, "a", backoff_s=10)
    old.fail("w", take(old).spec.name, 1, LATER)
    clock.now_s = 1.0
    fresh = Ledger([Spec("a", num_images=1000)], LedgerPolicy(backoff_s=10), clock, old.status(), num_lost=1)
    assert isinstance(fresh.lease("w"), Wait)
    clock.advance(10)
    assert take(fresh).spec.name == "a"


def test_a_task_without_progress_is_charged_and_its_worker_is_let_go(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c")
    ledger.join("w", 0, 1)
    take(ledger, "w")
    assert isinstance(ledger.lease("w", ["a"]), Lease)
    ledger.stall("w", "b", 1, "no progress for 1200 s while reading its data (x.png)")
    assert (status(ledger, "b").failures, status(ledger, "b").losses) == (1, 0)
    assert status(ledger, "b").cause == "no progress for 1200 s while reading its data (x.png)"
    assert (status(ledger, "a").failures, status(ledger, "a").losses) == (0, 1), "not its fault"
    assert not any(item.is_suspect for item in ledger.status().tasks)
    assert ledger.lease("w") == Ended()
    assert ledger.status().workers == {}


def test_of_a_pack_that_gets_no_further_each_task_is_a_suspect(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c")
    take(ledger, "w")
    assert isinstance(ledger.lease("w", ["a"]), Lease)
    ledger.stall("w", "a", 1, "no progress for 3600 s while being tuned", is_shared=True)
    assert [(item.is_suspect, item.failures) for item in ledger.status().tasks] == [
        (True, 0),
        (True, 0),
        (False, 0),
    ]
    lease = take(ledger, "v")
    ledger.stall("v", "a", lease.attempt, "no progress for 3600 s while being tuned", is_shared=True)
    assert status(ledger, "a").failures == 1, "alone, it is its own fault"


def test_a_stall_of_a_lost_lease_charges_no_task(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", lease_s=60)
    take(ledger, "w")
    clock.advance(61)
    take(ledger, "v")
    ledger.stall("w", "a", 1, "no progress")
    assert (status(ledger, "a").state, status(ledger, "a").worker) == ("leased", "v")
    assert status(ledger, "a").failures == 0
