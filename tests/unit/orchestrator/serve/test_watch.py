"""Looks go on whatever happens; one that hangs is told, and the age of the last good one is known."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from orchestrator.serve.ingress.looks import Looks
from orchestrator.serve.watch import Watch


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 500.0

    def __call__(self) -> float:
        return self.now_s


class Shelf:
    """What is looked at: fine, wrong, or silent until it is let go."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.is_silent = False
        self.asked, self.let_go = threading.Event(), threading.Event()

    def look(self) -> str | None:
        self.asked.set()
        if self.is_silent:
            assert self.let_go.wait(30)
        return self.problem


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.let_go.set()


@pytest.fixture
def watch(shelf: Shelf, clock: Clock) -> Watch:
    return Watch("shelf", shelf.look, poll_s=0.001, meanwhile="all goes on", limit_s=300.0, clock=clock)


def test_only_a_look_that_succeeds_is_one(watch: Watch, shelf: Shelf, clock: Clock) -> None:
    clock.now_s += 7.0
    assert watch.look_age_s == 7.0
    watch.step()
    assert (watch.look_age_s, watch.problem) == (0.0, None)
    clock.now_s += 5.0
    shelf.problem = "it is empty"
    watch.step()
    assert (watch.look_age_s, watch.problem) == (5.0, "it is empty")


def test_a_look_that_hangs_is_told_once_and_fails_the_check(
    watch: Watch, shelf: Shelf, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.is_silent = True
    watch.start()
    assert shelf.asked.wait(30)
    clock.now_s += 299.0
    watch.check()
    clock.now_s += 1.0
    hang = "a look at the shelf has not ended for more than 300 s"
    for _ in range(3):
        with pytest.raises(RuntimeError, match=hang):
            watch.check()
        watch.check(may_hang=True)
        assert watch.problem == hang
    assert watch.look_age_s == 300.0
    assert [record.getMessage() for record in caplog.records] == [f"{hang}; all goes on"]

    watch.stop()
    shelf.let_go.set()
    watch._thread.join(30)
    assert (watch.problem, watch.look_age_s) == (None, 0.0), "it came to an end after all"


def test_a_dead_thread_fails_the_check(watch: Watch) -> None:
    with pytest.raises(RuntimeError, match="the thread that follows the shelf is dead"):
        watch.check(may_hang=True)


def test_a_failure_that_comes_back_is_said_again(
    watch: Watch, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    for shelf.problem in ("down", "down", None, "down"):
        watch.step()
    assert [record.getMessage() for record in caplog.records] == ["down; all goes on"] * 2


class Poller:
    """Answers with an age, or fails; counts how often it is asked."""

    def __init__(self) -> None:
        self.age_s = 2.0
        self.num_broken = 0
        self.error: Exception | None = None
        self.num_asked = 0

    async def standing(self) -> tuple[float, int]:
        self.num_asked += 1
        if self.error is not None:
            raise self.error
        return self.age_s, self.num_broken


def test_the_registrys_age_grows_while_its_poller_does_not_answer(watch: Watch, clock: Clock) -> None:
    poller = Poller()
    looks = Looks({"tokens": watch}, poller.standing, clock)
    assert asyncio.run(looks.ages_s()) == {"tokens": 0.0, "registry": 2.0}
    clock.now_s += 4.0
    assert asyncio.run(looks.ages_s()) == {"tokens": 4.0, "registry": 6.0}
    assert poller.num_asked == 1, "probes are free"
    clock.now_s += 6.0
    poller.error = RuntimeError("the poller is dead")
    assert asyncio.run(looks.ages_s())["registry"] == 12.0
    assert poller.num_asked == 2


def test_what_is_broken_in_the_registry_is_counted_and_lasts_while_the_poller_is_away(clock: Clock) -> None:
    poller = Poller()
    poller.num_broken = 3
    looks = Looks(None, poller.standing, clock)
    assert looks.num_broken == {"registry": 0}
    asyncio.run(looks.ages_s())
    assert looks.num_broken == {"registry": 3}
    clock.now_s += 10.0
    poller.error = RuntimeError("the poller is dead")
    asyncio.run(looks.ages_s())
    assert looks.num_broken == {"registry": 3}


def test_without_followers_there_is_no_age() -> None:
    assert asyncio.run(Looks().ages_s()) == {}
