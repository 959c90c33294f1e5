"""A worker may hold several tasks; which of them its death counts against."""

from orchestrator.train.ledger.failures import Failure
from orchestrator.train.ledger.grants import Lease, Wait
from tests.unit.orchestrator.train.fakes import Clock, make_ledger, status, take


def test_a_worker_gets_more_while_enough_is_left_for_the_others(clock: Clock) -> None:
    ledger = make_ledger(clock, *"abcdef")
    ledger.join("w", 0, 2)
    ledger.join("v", 1, 2)
    held: list[str] = []
    while isinstance(grant := ledger.lease("w", held), Lease):
        held.append(grant.spec.name)
    assert held == ["a", "b"], "with four left for two workers, two are a fair share"
    assert [status(ledger, name).state for name in "abc"] == ["leased", "leased", "pending"]
    others: list[str] = []
    while isinstance(grant := ledger.lease("v", others), Lease):
        others.append(grant.spec.name)
    assert others == ["c", "d"]
    assert ledger.complete("v", "c", 1, {})
    assert ledger.lease("v", ["d"]) == Wait(seconds=0.5), "the last two are for idle workers"
    assert ledger.complete("v", "d", 1, {})
    assert take(ledger, "v").spec.name == "e"


def test_a_lease_that_is_not_held_any_more_is_given_up(clock: Clock) -> None:
    ledger = make_ledger(clock, *"abcd")
    first, second = take(ledger), ledger.lease("w", ["a"])
    assert isinstance(second, Lease)
    assert [first.spec.name, second.spec.name] == ["a", "b"]
    third = ledger.lease("w", ["b"])
    assert isinstance(third, Lease)
    assert (third.spec.name, third.attempt) == ("a", 2), "it was given up, and is first again"
    assert status(ledger, "b").attempt == 1
    assert ledger.complete("w", "b", 1, {})


def test_a_task_in_a_pack_that_died_is_suspect_and_tuned_alone(clock: Clock) -> None:
    ledger = make_ledger(clock, *"abcdef", max_attempts=1)
    ledger.join("w", 0, 1)
    for held in ([], ["a"]):
        ledger.lease("w", held)
    ledger.crashed(0, "SIGSEGV")
    assert [(status(ledger, name).failures, status(ledger, name).losses) for name in "ab"] == [(0, 1), (0, 1)]
    assert status(ledger, "a").cause == "its worker died, with 1 other task: SIGSEGV"

    ledger.join("v", 0, 1)
    assert take(ledger, "v").spec.name == "a"
    assert ledger.lease("v", ["a"]) == Wait(seconds=0.5), "a suspect is alone"
    assert ledger.complete("v", "a", 2, {})
    assert take(ledger, "v").spec.name == "b"
    ledger.crashed(0, "SIGSEGV")
    assert status(ledger, "b").state == "failed", "alone, it is its own fault"
    ledger.join("u", 0, 1)
    assert take(ledger, "u").spec.name == "c"
    assert isinstance(ledger.lease("u", ["c"]), Lease), "the others are none"


def test_no_task_is_blamed_for_the_death_of_a_node(clock: Clock) -> None:
    ledger = make_ledger(clock, *"abcdef", max_attempts=1)
    ledger.join("w", 0, 1)
    for held in ([], ["a"]):
        assert isinstance(ledger.lease("w", held), Lease)
    ledger.crashed(0, "its node 10.0.0.5 has died", with_node=True)
    for name in "ab":
        found = status(ledger, name)
        assert (found.state, found.failures, found.losses, found.is_suspect) == ("pending", 0, 1, False)
        assert found.cause == "its worker died: its node 10.0.0.5 has died"


def test_a_suspect_waits_for_a_worker_with_empty_hands(clock: Clock) -> None:
    ledger = make_ledger(clock, *"abcd")
    ledger.join("w", 0, 1)
    take(ledger)
    ledger.lease("w", ["a"])
    shared = Failure(cause="a step of 2 tasks failed", is_retryable=True, is_shared=True)
    assert ledger.fail("w", "a", 1, shared)
    assert (status(ledger, "a").failures, status(ledger, "a").is_suspect) == (0, True)
    assert ledger.lease("w", ["b"]) == Wait(seconds=0.5)
    assert ledger.complete("w", "b", 1, {})
    assert take(ledger).spec.name == "a"
    alone = Failure(cause="again", is_retryable=True, is_shared=False)
    assert ledger.fail("w", "a", 2, alone)
    assert status(ledger, "a").failures == 1
