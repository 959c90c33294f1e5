from orchestrator.train.ledger.awake_clock import AwakeClock
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from tests.unit.orchestrator.train.fakes import Clock, Spec, status, take


def test_a_ledger_that_was_paused_loses_no_lease_whose_heartbeat_waits() -> None:
    real = Clock()
    ledger = Ledger([Spec("a"), Spec("b")], LedgerPolicy(lease_s=60), AwakeClock(real))
    take(ledger, "w1")
    take(ledger, "w2")
    real.advance(3_600)
    assert ledger.heartbeat("w1", "a", 1), "it was sent in time, and is read late"
    # The other worker died meanwhile.
    for _ in range(60):
        real.advance(1)
        assert ledger.heartbeat("w1", "a", 1)
    assert (status(ledger, "a").state, status(ledger, "b").state) == ("leased", "pending")


def test_time_that_is_read_often_is_as_it_is() -> None:
    real = Clock()
    clock = AwakeClock(real, longest_step_s=5.0)
    for _ in range(10):
        real.advance(0.5)
        clock()
    assert clock() == 5.0
    real.advance(100)
    assert clock() == 10.0
