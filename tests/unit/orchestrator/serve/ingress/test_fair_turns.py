"""Turns of accounts at threads: no account has them all, and each has its turn."""

import threading

from orchestrator.serve.ingress.fair_turns import FairTurns


class Held:
    """Jobs that note that they began, and go on when they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = threading.Event()
        self.has_begun = threading.Semaphore(0)

    def __call__(self, name: str) -> str:
        self.begun.append(name)
        self.has_begun.release()
        assert self.go_on.wait(30)
        return name

    def wait_begun(self, number: int) -> None:
        for _ in range(number):
            assert self.has_begun.acquire(timeout=30)


def test_an_account_leaves_a_thread_to_the_others() -> None:
    turns, held = FairTurns(3, "turns"), Held()
    flood = [turns.submit("flood", held, f"flood {number}") for number in range(10)]
    held.wait_begun(2)
    other = turns.submit("other", held, "other")
    held.wait_begun(1)
    assert (sorted(held.begun), turns.num_running) == (["flood 0", "flood 1", "other"], 3)
    held.go_on.set()
    assert [future.result(30) for future in (*flood, other)] == [f"flood {n}" for n in range(10)] + ["other"]


def test_accounts_take_turns_however_many_jobs_wait() -> None:
    turns, held = FairTurns(1, "turns"), Held()
    first = turns.submit("flood", held, "first")
    held.wait_begun(1)
    jobs = [turns.submit("flood", held, f"flood {number}") for number in range(5)]
    jobs.append(turns.submit("other", held, "other"))
    held.go_on.set()
    for job in (first, *jobs):
        job.result(30)
    assert held.begun.index("other") <= 2


def test_cancelled_jobs_are_left_out_and_failures_are_their_callers() -> None:
    turns, held = FairTurns(1, "turns"), Held()
    first = turns.submit("one", held, "first")
    held.wait_begun(1)
    cancelled, failing = turns.submit("one", held, "cancelled"), turns.submit("one", lambda: 1 / 0)
    assert cancelled.cancel()
    held.go_on.set()
    assert first.result(30) == "first"
    assert isinstance(failing.exception(30), ZeroDivisionError)
    assert (held.begun, turns.num_running) == (["first"], 0)
