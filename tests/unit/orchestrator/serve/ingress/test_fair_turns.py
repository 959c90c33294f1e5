"""Turns of accounts at places: no account has them all, and each has its turn."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from orchestrator.serve.ingress.fair_turns import FairTurns


class Held:
    """Jobs that note that they began, and go on when they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = asyncio.Event()

    def job(self, name: str) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            self.begun.append(name)
            await self.go_on.wait()
            return name

        return run


async def start(turns: FairTurns, held: Held, *names: str) -> list["asyncio.Future[str]"]:
    """Jobs of the accounts that their names begin with."""
    jobs = [asyncio.ensure_future(turns.run(name.split()[0], held.job(name))) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    return jobs


def test_an_account_leaves_a_place_to_the_others() -> None:
    async def scene() -> None:
        turns, held = FairTurns(3), Held()
        names = [*(f"flood {number}" for number in range(10)), "other 0"]
        jobs = await start(turns, held, *names)
        assert (held.begun, turns.num_running) == (["flood 0", "flood 1", "other 0"], 3)
        held.go_on.set()
        assert await asyncio.gather(*jobs) == names
        assert turns.num_running == 0

    asyncio.run(scene())


def test_accounts_take_turns_however_many_jobs_wait() -> None:
    async def scene() -> None:
        turns, held = FairTurns(1), Held()
        jobs = await start(turns, held, *(f"flood {number}" for number in range(5)), "other 0")
        held.go_on.set()
        await asyncio.gather(*jobs)
        assert held.begun.index("other 0") <= 2

    asyncio.run(scene())


def test_cancelled_jobs_are_left_out_and_failures_are_their_callers() -> None:
    async def fail() -> str:
        raise ZeroDivisionError

    async def scene() -> None:
        turns, held = FairTurns(1), Held()
        first, cancelled = await start(turns, held, "one 0", "one 1")
        failing = asyncio.ensure_future(turns.run("one", fail))
        cancelled.cancel()
        held.go_on.set()
        found = await asyncio.gather(first, cancelled, failing, return_exceptions=True)
        assert [type(one) for one in found] == [str, asyncio.CancelledError, ZeroDivisionError]
        assert (held.begun, turns.num_running) == (["one 0"], 0)

    asyncio.run(scene())


def test_a_turn_that_is_cancelled_as_a_place_becomes_free_goes_to_the_next() -> None:
    async def scene() -> None:
        turns = FairTurns(1)
        ends: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(3)]
        first, gone, last = [
            asyncio.ensure_future(turns.run("one", partial(asyncio.shield, end))) for end in ends
        ]
        await asyncio.sleep(0)
        # The job's end is told to whoever waits for it before the cancelled caller runs again.
        ends[0].set_result("first")
        gone.cancel()
        ends[2].set_result("last")
        found = await asyncio.wait_for(asyncio.gather(first, gone, last, return_exceptions=True), 60)
        assert found[::2] == ["first", "last"]
        assert isinstance(found[1], asyncio.CancelledError)
        assert turns.num_running == 0

    asyncio.run(scene())


def test_a_job_in_progress_keeps_its_place_when_its_caller_goes() -> None:
    async def scene() -> None:
        turns, held = FairTurns(1), Held()
        [gone] = await start(turns, held, "one 0")
        gone.cancel()
        [waiting] = await start(turns, held, "two 0")
        assert (held.begun, turns.num_running) == (["one 0"], 1)
        held.go_on.set()
        assert await waiting == "two 0"

    asyncio.run(scene())


def test_a_turn_that_comes_as_its_caller_goes_is_the_next_ones() -> None:
    async def scene() -> None:
        turns, held = FairTurns(1), Held()
        [first, gone, next_] = await start(turns, held, "one 0", "two 0", "three 0")
        held.go_on.set()
        # The place is free, and "two" has been told so, in the turn of the loop in which it goes.
        while not first.done():
            await asyncio.sleep(0)
        gone.cancel()
        found = await asyncio.gather(gone, next_, return_exceptions=True)
        assert found[1] == "three 0"
        assert turns.num_running == 0

    asyncio.run(scene())
