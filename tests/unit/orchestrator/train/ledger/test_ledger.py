import pytest

from orchestrator.manifest.model import Terms
from orchestrator.train.ledger.failures import Failure
from orchestrator.train.ledger.grants import Ended, LedgerPolicy, Wait
from orchestrator.train.ledger.ledger import Ledger
from ship.settings.config import TuneConfig
from tests.unit.orchestrator.train.fakes import LATER, Clock, Spec, epoch, make_ledger, status, take

NEVER = Failure(cause="a.png is corrupt", is_retryable=False)


def kinds(ledger: Ledger) -> list[tuple[str, str]]:
    return [(event.kind, event.task) for event in ledger.read(0)[0]]


def test_longest_task_first(clock: Clock) -> None:
    specs = [
        Spec("small", num_images=10),
        Spec("many-epochs", num_images=50, config=TuneConfig(epochs=1000)),
        Spec("large", num_images=200),
        Spec("many-steps", num_images=10, config=TuneConfig(min_steps=10_000)),
    ]
    ledger = Ledger(specs, LedgerPolicy(), clock)
    order = [take(ledger, f"w{number}").spec.name for number in range(4)]
    assert order == ["many-steps", "many-epochs", "large", "small"]


def test_priority_goes_before_deadline_and_deadline_before_length(clock: Clock) -> None:
    specs = [
        Spec("long", num_images=500),
        Spec("short", num_images=5),
        Spec("later", num_images=900, terms=Terms(deadline_s=9_000.0)),
        Spec("soon", num_images=5, terms=Terms(deadline_s=2_000.0)),
        Spec("can-wait", num_images=900, terms=Terms(priority=-1, deadline_s=1_001.0)),
        Spec("first", num_images=1, terms=Terms(priority=2)),
    ]
    ledger = Ledger(specs, LedgerPolicy(), clock)
    order = [take(ledger, f"w{number}").spec.name for number in range(6)]
    assert order == ["first", "soon", "later", "long", "short", "can-wait"]


def test_two_tasks_of_one_name_are_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="same name"):
        make_ledger(clock, "a", "a")


def test_a_task_is_leased_to_one_worker_only_and_idle_ones_wait(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    assert take(ledger, "w1").attempt == 1
    assert ledger.lease("w2") == Wait(seconds=0.5)
    assert ledger.complete("w1", "a", 1, {"digest": "d"})
    assert ledger.lease("w2") == Wait(seconds=0.5), "until the driver has seen it and closes the ledger"
    ledger.close()
    assert ledger.lease("w2") == Ended()
    assert kinds(ledger) == [("leased", "a"), ("published", "a")]
    assert ledger.status().all_ended


def test_heartbeats_keep_a_lease_and_their_lack_ends_it(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", lease_s=60)
    take(ledger, "w1")
    for _ in range(5):
        clock.advance(59)
        assert ledger.heartbeat("w1", "a", 1)
    clock.advance(60)
    assert take(ledger, "w2").attempt == 2
    assert kinds(ledger) == [("leased", "a"), ("retried", "a"), ("leased", "a")]


def test_a_late_writer_is_refused(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", lease_s=60)
    take(ledger, "w1")
    clock.advance(61)
    take(ledger, "w2")
    assert not ledger.heartbeat("w1", "a", 1)
    assert not ledger.heartbeat("w1", "a", 2), "a token of another lease is none"
    assert not ledger.complete("w1", "a", 1, {})
    assert not ledger.fail("w1", "a", 1, NEVER)
    assert status(ledger, "a").state == "leased"
    assert ledger.complete("w2", "a", 2, {})


def test_a_late_writer_of_the_same_worker_is_refused(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", lease_s=60)
    take(ledger, "w")
    clock.advance(61)
    take(ledger, "w")
    assert not ledger.complete("w", "a", 1, {})
    assert ledger.complete("w", "a", 2, {})


def test_completing_twice_counts_once(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    take(ledger)
    assert ledger.complete("w", "a", 1, {})
    assert ledger.complete("w", "a", 1, {}), "its first answer may have been lost on the way"
    assert kinds(ledger).count(("published", "a")) == 1


def test_a_final_failure_is_final(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    take(ledger)
    assert ledger.fail("w", "a", 1, NEVER)
    assert ledger.lease("w") == Wait(seconds=0.5)
    assert status(ledger, "a").cause == "a.png is corrupt"
    assert kinds(ledger)[-1] == ("failed", "a")


def test_failures_that_may_pass_are_retried_with_growing_pauses_up_to_a_limit(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", max_attempts=3, backoff_s=2)
    take(ledger)
    ledger.fail("w", "a", 1, LATER)
    assert isinstance(ledger.lease("w"), Wait)
    clock.advance(2)
    assert take(ledger).attempt == 2
    ledger.fail("w", "a", 2, LATER)
    clock.advance(2)
    assert isinstance(ledger.lease("w"), Wait), "the second pause is longer"
    clock.advance(2)
    assert take(ledger).attempt == 3
    ledger.fail("w", "a", 3, LATER)
    assert status(ledger, "a").state == "failed"
    assert status(ledger, "a").cause == "the store is away (failed 3 times)"
    assert [kind for kind, _ in kinds(ledger)] == [
        "leased",
        "retried",
        "leased",
        "retried",
        "leased",
        "failed",
    ]


def test_pauses_have_a_limit() -> None:
    policy = LedgerPolicy(backoff_s=2, max_backoff_s=60)
    assert [policy.backoff_after(failures) for failures in (1, 2, 3, 10)] == [2, 4, 8, 60]


def test_a_pause_of_one_task_does_not_hold_up_the_others(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b")
    take(ledger)
    ledger.fail("w", "a", 1, LATER)
    assert take(ledger).spec.name == "b"


def test_a_restarted_pool_gives_up_its_leases_at_once_and_blames_no_task(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b")
    for seat in (0, 1):
        ledger.join(f"old{seat}", seat, 2)
        take(ledger, f"old{seat}")
    ledger.join("new0", 0, 2)
    assert status(ledger, "a").state == "pending"
    assert status(ledger, "b").state == "leased", "its seat is not taken again yet"
    assert take(ledger, "new0").spec.name == "a"
    ledger.join("new1", 1, 2)
    assert take(ledger, "new1").spec.name == "b"
    assert [status(ledger, name).failures for name in "ab"] == [0, 0]
    assert not ledger.heartbeat("old0", "a", 1)
    assert ledger.lease("old0") == Ended(), "a worker of the old pool that still lives gets nothing"


def test_an_evicted_worker_cannot_come_back_not_even_to_a_ledger_that_took_over(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    ledger.join("old", 0, 1)
    ledger.join("new", 0, 1)
    for _ in range(2):
        ledger.join("old", 0, 1)
        assert ledger.status().workers == {0: "new"}
        assert ledger.lease("old") == Ended()
        ledger = Ledger([Spec("a")], LedgerPolicy(), clock, ledger.status())


def test_a_smaller_pool_gives_up_the_leases_of_seats_that_are_gone(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c")
    for seat in range(3):
        ledger.join(f"old{seat}", seat, 3)
        take(ledger, f"old{seat}")
    ledger.join("new0", 0, 1)
    assert ledger.status().counts()["pending"] == 3
    assert ledger.status().workers == {0: "new0"}


def test_only_the_task_of_the_worker_that_died_is_charged(clock: Clock) -> None:
    ledger = make_ledger(clock, "bad", "good", max_attempts=3, backoff_s=0)
    for generation in range(3):
        for seat in (0, 1):
            ledger.join(f"g{generation}s{seat}", seat, 2)
        assert take(ledger, f"g{generation}s0").spec.name == "bad"
        assert take(ledger, f"g{generation}s1").spec.name == "good"
        ledger.heartbeat(f"g{generation}s1", "good", generation + 1, epoch(generation + 1))
        ledger.crashed(0, "SIGKILL")
    assert status(ledger, "bad").state == "failed"
    assert status(ledger, "bad").cause == "its worker died: SIGKILL (failed 3 times)"
    assert status(ledger, "good").state == "leased"
    assert status(ledger, "good").failures == 0


def test_a_crash_of_an_unknown_or_idle_seat_harms_no_task(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    ledger.crashed(7, "?")
    ledger.join("w", 0, 1)
    ledger.crashed(0, "no such module")
    assert ledger.status().last_crash == "no such module"
    assert status(ledger, "a").state == "pending"


def test_losses_in_a_row_without_progress_end_a_task(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", max_losses=5, lease_s=60)
    for _ in range(5):
        take(ledger)
        clock.advance(61)
    assert status(ledger, "a").state == "failed"
    assert "lost 5 times in a row" in status(ledger, "a").cause


def test_a_task_that_gets_further_each_time_may_be_lost_any_number_of_times(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", max_losses=2, lease_s=60)
    for number in range(1, 50):
        lease = take(ledger)
        assert ledger.heartbeat("w", "a", lease.attempt, epoch(number))
        clock.advance(61)
    assert status(ledger, "a").state == "pending"


def test_starting_over_is_no_progress(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", max_losses=3, lease_s=60)
    for _ in range(4):
        lease = take(ledger)
        for number in range(1, 11):
            ledger.heartbeat("w", "a", lease.attempt, epoch(number))
        clock.advance(61)
        if status(ledger, "a").state == "failed":
            break
    assert status(ledger, "a").attempt == 3


def test_a_worker_that_asks_anew_has_given_up_what_it_held(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b")
    assert take(ledger).spec.name == "a"
    assert take(ledger).attempt == 2
    assert status(ledger, "a").losses == 1


def test_starts_in_vain_count_pools_that_never_took_up_work(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    for number in range(4):
        ledger.join(f"w{number}", 0, 1)
        ledger.crashed(0, "cannot load the backbone")
    assert ledger.status().starts_in_vain == 4
    ledger.join("w", 0, 1)
    take(ledger)
    assert ledger.status().starts_in_vain == 0


def test_a_worker_that_dies_while_nothing_waits_started_not_in_vain(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    ledger.join("busy", 1, 2)
    lease = take(ledger, "busy")
    for number in range(6):
        ledger.join(f"idle-{number}", 0, 2)
        ledger.crashed(0, "its node was taken away")
        assert ledger.status().starts_in_vain == 0
    assert ledger.heartbeat("busy", "a", lease.attempt)


def test_a_lease_that_lives_shows_that_the_pool_took_up_work(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b")
    ledger.join("busy", 1, 2)
    lease = take(ledger, "busy")
    for number in range(3):
        ledger.join(f"idle-{number}", 0, 2)
    assert ledger.status().starts_in_vain == 3
    assert ledger.heartbeat("busy", lease.spec.name, lease.attempt)
    assert ledger.status().starts_in_vain == 0


def test_a_closed_ledger_has_workers_drop_their_tasks_but_takes_what_they_completed(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c")
    take(ledger, "w1")
    take(ledger, "w2")
    ledger.close()
    assert not ledger.heartbeat("w1", "a", 1, epoch(1))
    assert ledger.complete("w2", "b", 1, {})
    assert ledger.lease("w1") == Ended()
    assert ledger.status().counts() == {"pending": 2, "done": 1}
    assert (status(ledger, "a").losses, status(ledger, "a").cause) == (0, "the run was stopped")


def test_epochs_show_in_the_snapshot_and_as_events(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    take(ledger)
    clock.advance(3)
    ledger.heartbeat("w", "a", 1, epoch(11, of=100, train_accuracy=0.9, val_accuracy=0.8))
    clock.advance(2)
    ledger.heartbeat("w", "a", 1, epoch(12, of=100, train_accuracy=0.95))
    now = status(ledger, "a")
    assert (now.epoch, now.num_epochs, now.best_epoch, now.train_accuracy) == (12, 100, 12, 0.95)
    assert (now.first_epoch, now.first_epoch_s, now.started_s) == (11, 1_003.0, 1_000.0)
    seen = [event for event in ledger.read(0)[0] if event.kind == "epoch"]
    assert [event.data["epoch"] for event in seen] == [11, 12]
    assert [event.time_s for event in seen] == [1_003.0, 1_005.0]


def test_a_ledger_takes_over_from_a_lost_one(clock: Clock) -> None:
    names = ("done", "bad", "held", "tried", "new")
    old = make_ledger(clock, *names, backoff_s=5)
    old.join("w", 0, 1)
    old.complete("w", take(old).spec.name, 1, {})
    old.fail("w", take(old).spec.name, 1, NEVER)
    assert take(old, "v").spec.name == "held"
    old.heartbeat("v", "held", 1, epoch(7))
    old.fail("w", take(old).spec.name, 1, LATER)
    seen = old.status()

    specs = [Spec(name, num_images=1000 - number) for number, name in enumerate(names)]
    fresh = Ledger(specs, LedgerPolicy(backoff_s=5), clock, seen, num_lost=1)
    assert [item.state for item in fresh.status().tasks] == [
        "done",
        "failed",
        "leased",
        "pending",
        "pending",
    ]
    assert fresh.status().workers == {0: "w"}
    assert fresh.heartbeat("v", "held", 1, epoch(8)), "a lease outlives its ledger"
    assert take(fresh).spec.name == "new", "pauses are kept"
    clock.advance(5)
    assert take(fresh, "u").attempt > 2, "no token is given twice"
    clock.advance(100)
    assert status(fresh, "held").state == "pending", "a lease that was taken over runs out like any other"


def test_a_lease_given_after_the_last_look_at_a_lost_ledger_is_fenced_off(clock: Clock) -> None:
    old = make_ledger(clock, "a")
    seen = old.status()
    unseen = take(old, "w1")
    fresh = Ledger([Spec("a", num_images=1000)], LedgerPolicy(), clock, seen, num_lost=1)
    assert not fresh.heartbeat("w1", "a", unseen.attempt)
    again = take(fresh, "w2")
    assert again.attempt > unseen.attempt
    assert not fresh.complete("w1", "a", unseen.attempt, {})
    assert fresh.complete("w2", "a", again.attempt, {})


def test_a_completion_that_went_down_with_its_ledger_is_asked_for_again(clock: Clock) -> None:
    old = make_ledger(clock, "a")
    take(old)
    seen = old.status()
    assert old.complete("w", "a", 1, {})
    assert isinstance(old.lease("w"), Wait), "the worker stays, for no reader has seen it yet"
    fresh = Ledger([Spec("a", num_images=1000)], LedgerPolicy(), clock, seen, num_lost=1)
    assert take(fresh).attempt > 1


def test_a_cancelled_task_is_taken_from_its_worker_and_given_to_no_other(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c")
    take(ledger, "w1")
    assert ledger.cancel(["a", "b"]) == ["a", "b"]
    assert not ledger.heartbeat("w1", "a", 1, epoch(1))
    assert not ledger.complete("w1", "a", 1, {})
    assert take(ledger, "w1").spec.name == "c"
    assert ledger.complete("w1", "c", 1, {})
    assert ledger.cancel(["a", "c"]) == [], "what has ended stays as it is"
    assert ledger.lease("w1") == Wait(seconds=0.5)
    assert [status.state for status in ledger.status().tasks] == ["cancelled", "cancelled", "done"]
    assert [event.attempt for event in ledger.read(0)[0] if event.kind == "cancelled"] == [1, 0]


def test_failed_and_cancelled_tasks_are_taken_up_again_on_request(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c", max_attempts=2, backoff_s=1)
    take(ledger)
    ledger.fail("w", "a", 1, NEVER)
    ledger.cancel(["b"])
    assert ledger.retry(["a", "b", "c"]) == ["a", "b"]
    again = take(ledger)
    assert (again.spec.name, again.attempt) == ("a", 2), "a fencing token is never given twice"
    ledger.fail("w", "a", 2, LATER)
    clock.advance(1)
    assert take(ledger).spec.name == "a", "earlier failures no longer count"
    assert status(ledger, "a").cause == "the store is away"
    assert status(ledger, "a").ended_s is None


def test_a_look_from_a_position_on_shows_what_happened_since(clock: Clock) -> None:
    ledger = make_ledger(clock, "a", "b", "c")
    _, position = ledger.read(0)
    assert len(ledger.status().tasks) == 3
    assert ledger.status(position).tasks == (), "nothing has happened yet"
    take(ledger, "w1")
    _, position = ledger.read(position)
    assert ledger.status(position).tasks == ()
    take(ledger, "w2")
    ledger.heartbeat("w1", "a", 1)
    assert [status.task for status in ledger.status(position).tasks] == ["b"]
    ledger.heartbeat("w1", "a", 1, epoch(1))
    assert [status.task for status in ledger.status(position).tasks] == ["a", "b"]
    clock.advance(100)
    assert [status.state for status in ledger.status(position).tasks] == ["pending", "pending"]
