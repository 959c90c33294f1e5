"""Rows of any tasks end in batches: in turn, in time, within the bounds, each with its own reply."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence

import pytest

from orchestrator.serve.batching.batch_wait import BatchWait
from orchestrator.serve.batching.batcher import Batcher, LateError, QueueFullError

# No device is too slow.
UNBOUND = {"max_pass_s": 3600.0, "max_queue_s": 3600.0}


class Engine:
    """Answers a row with itself, one batch at a time, when it is let; keeps what came together."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None
        if is_open:
            self.open.set()

    async def __call__(self, rows: list[str]) -> Sequence[str]:
        self.batches.append(rows)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [row.upper() for row in rows]


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 30.0))


def make(
    engine: Engine, *, max_rows: int = 4, max_waiting: int = 8, wait: BatchWait | None = None
) -> Batcher[str, str]:
    wait = wait or BatchWait(0.0)
    return Batcher(engine, max_rows=max_rows, max_waiting=max_waiting, wait=wait, **UNBOUND)


async def ask(batcher: Batcher[str, str], row: str, patience_s: float = 20.0) -> str:
    """Ask for a row that is named after its task, as in ``a1``."""
    return (await batcher.submit(row[0], row, patience_s)).reply


async def start(batcher: Batcher[str, str], *rows: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(ask(batcher, row)) for row in rows]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def test_each_row_gets_its_own_reply():
    async def scene() -> None:
        batcher = make(Engine())
        assert await asyncio.gather(*(ask(batcher, row) for row in ("a1", "b1", "a2"))) == [
            "A1",
            "B1",
            "A2",
        ]

    play(scene)


def test_what_comes_during_a_pass_goes_together_and_in_turn():
    async def scene() -> None:
        engine = Engine(is_open=False)
        batcher = make(engine)
        replies = await start(batcher, "a1")
        replies += await start(batcher, "a2", "a3", "a4", "a5", "b1")
        engine.open.set()
        await asyncio.gather(*replies)
        assert engine.batches == [["a1"], ["a2", "b1", "a3", "a4"], ["a5"]]

    play(scene)


def test_a_full_queue_turns_away_the_flood_and_no_other_task():
    async def scene() -> None:
        engine = Engine(is_open=False)
        batcher = make(engine, max_waiting=3)
        replies = await start(batcher, "x1")
        replies += await start(batcher, "a1", "a2", "a3", "a4", "b1")
        engine.open.set()
        found = await asyncio.gather(*replies, return_exceptions=True)
        assert [reply if isinstance(reply, str) else type(reply) for reply in found] == [
            "X1",
            "A1",
            "A2",
            QueueFullError,
            QueueFullError,
            "B1",
        ]

    play(scene)


@pytest.mark.parametrize(
    ("row_s", "patience_s", "expected_s"),
    [
        pytest.param(None, 1000.0, 0.0, id="nothing is known of passes"),
        pytest.param(10.0, 1000.0, 20.0, id="a quarter of what eight rows take"),
        pytest.param(10.0, 20.0, 5.0, id="a quarter of its patience"),
    ],
)
def test_a_refused_task_is_told_how_long_to_stay_away(
    row_s: float | None, patience_s: float, expected_s: float
):
    async def scene() -> None:
        engine = Engine(is_open=False)
        wait = BatchWait(0.0)
        batcher = make(engine, max_waiting=8, wait=wait)
        if row_s is not None:
            for num_rows in (1, 4):
                wait.note_pass(num_rows, row_s * num_rows)
        replies = await start(batcher, "x1")
        replies += await start(batcher, *(f"a{number}" for number in range(8)))
        with pytest.raises(QueueFullError) as refused:
            await ask(batcher, "a8", patience_s)
        assert refused.value.wait_s == pytest.approx(expected_s)
        engine.open.set()
        await asyncio.gather(*replies, return_exceptions=True)

    play(scene)


def test_a_row_whose_time_is_up_is_told_so_and_takes_no_place():
    async def scene() -> None:
        engine = Engine(is_open=False)
        batcher = make(engine, max_waiting=1)
        (first,) = await start(batcher, "a1")
        with pytest.raises(LateError):
            await ask(batcher, "a2", patience_s=0.01)
        (third,) = await start(batcher, "a3")
        engine.open.set()
        assert await asyncio.gather(first, third) == ["A1", "A3"]
        assert engine.batches == [["a1"], ["a3"]]

    play(scene)


def test_what_would_come_too_late_is_not_begun_unless_nothing_else_waits():
    async def scene() -> None:
        now_s = 0.0
        passes: list[list[str]] = []

        async def answer(rows: list[str]) -> list[str]:
            nonlocal now_s
            passes.append(rows)
            await asyncio.sleep(0)
            now_s += 4.0 * len(rows)
            return rows

        batcher: Batcher[str, str] = Batcher(
            answer, max_rows=4, max_waiting=8, wait=BatchWait(0.0), clock=lambda: now_s, **UNBOUND
        )
        # The first pass warms up, and tells nothing of those to come.
        assert await ask(batcher, "a1") == "a1"
        assert await ask(batcher, "a2") == "a2"
        hasty, patient = await asyncio.gather(
            ask(batcher, "b1", patience_s=7.0), ask(batcher, "c1", patience_s=20.0), return_exceptions=True
        )
        assert isinstance(hasty, LateError)
        assert patient == "c1"
        # A pass alone is the only way to learn that passes are faster now.
        assert await ask(batcher, "d1", patience_s=1.0) == "d1"
        assert passes == [["a1"], ["a2"], ["c1"], ["d1"]]

    play(scene)


def test_a_client_that_hangs_up_is_not_answered():
    async def scene() -> None:
        engine = Engine(is_open=False)
        batcher = make(engine)
        first, second, third = await start(batcher, "a1", "a2", "a3")
        # All three came before the first pass began; ask for more behind it.
        fourth, fifth = await start(batcher, "a4", "a5")
        fourth.cancel()
        await asyncio.gather(fourth, return_exceptions=True)
        engine.open.set()
        assert await asyncio.gather(first, second, third, fifth) == ["A1", "A2", "A3", "A5"]
        assert engine.batches == [["a1", "a2", "a3"], ["a5"]]

    play(scene)


def test_a_batch_that_fails_fails_alone():
    async def scene() -> None:
        engine = Engine()
        batcher = make(engine)
        engine.error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            await ask(batcher, "a1")
        engine.error = None
        assert await ask(batcher, "a2") == "A2"

    play(scene)


def test_a_wrong_number_of_replies_is_an_error_and_no_end():
    async def scene() -> None:
        replies: list[list[str]] = [[], ["A2"]]

        async def answer(rows: list[str]) -> Sequence[str]:
            return replies.pop(0)

        batcher: Batcher[str, str] = Batcher(
            answer, max_rows=4, max_waiting=4, wait=BatchWait(0.0), **UNBOUND
        )
        with pytest.raises(ValueError, match="zip"):
            await ask(batcher, "a1")
        assert await ask(batcher, "a2") == "A2"

    play(scene)


def test_a_batch_waits_for_rows_that_are_on_their_way():
    async def scene() -> None:
        engine = Engine()
        now_s = 0.0
        wait = BatchWait(10.0)
        batcher: Batcher[str, str] = Batcher(
            engine, max_rows=4, max_waiting=8, wait=wait, clock=lambda: now_s, **UNBOUND
        )
        # Rows come each 0.1 s, and a pass takes 1 s whatever it has: seen by the clock, which stands still.
        for number in range(50):
            wait.note_arrival(number * 0.1)
        for num_rows in (1, 2, 3) * 5:
            wait.note_pass(num_rows, 1.0)
        now_s = 4.95
        first, second, third, fourth = await start(batcher, "a1", "a2", "a3", "a4")
        assert await asyncio.gather(first, second, third, fourth) == ["A1", "A2", "A3", "A4"]
        (early,) = await start(batcher, "b1")
        assert engine.batches == [["a1", "a2", "a3", "a4"]]
        (late,) = await start(batcher, "b2")
        assert await asyncio.gather(early, late) == ["B1", "B2"]
        assert engine.batches[1] == ["b1", "b2"]

    play(scene)


def test_on_a_slow_device_a_pass_has_fewer_rows_and_fewer_wait():
    async def scene() -> None:
        engine, wait, now_s = Engine(is_open=False), BatchWait(0.0), 0.0

        async def answer(rows: list[str]) -> list[str]:
            nonlocal now_s
            replies = await engine(rows)
            now_s += 0.1 + 0.4 * len(rows)
            return replies

        bounds = {"max_pass_s": 1.0, "max_queue_s": 2.5}
        batcher: Batcher[str, str] = Batcher(
            answer, max_rows=4, max_waiting=100, wait=wait, clock=lambda: now_s, **bounds
        )
        for num_rows in (1, 2, 4):
            wait.note_pass(num_rows, 0.1 + 0.4 * num_rows)
        replies = await start(batcher, "x1")
        # Two rows take 0.9 s, and 2.5 s are 5 rows.
        replies += await start(batcher, *(f"a{number}" for number in range(6)), "b1")
        engine.open.set()
        found = await asyncio.gather(*replies, return_exceptions=True)
        assert engine.batches[0] == ["x1"]
        assert max(len(batch) for batch in engine.batches) == 2
        assert sum(isinstance(reply, QueueFullError) for reply in found) == 2

    play(scene)


def test_a_device_that_is_slower_than_any_limit_still_answers():
    async def scene() -> None:
        wait = BatchWait(0.0)
        batcher: Batcher[str, str] = Batcher(
            Engine(), max_rows=4, max_waiting=100, wait=wait, max_pass_s=0.1, max_queue_s=0.1
        )
        for num_rows in (1, 2, 4):
            wait.note_pass(num_rows, 9.0 * num_rows)
        assert await ask(batcher, "a1") == "A1"

    play(scene)


class Held:
    """A row that says when it has left memory."""


@pytest.mark.parametrize("end", ["answered", "failed", "full", "late", "hung up"])
def test_a_row_leaves_memory_with_its_reply(end: str):
    """Its prompt has a slot on the device, which the next prompt may be waiting for."""

    async def scene() -> None:
        go_on = asyncio.Event()

        async def answer(rows: list[Held]) -> list[str]:
            await go_on.wait()
            if end == "failed":
                raise ZeroDivisionError
            return ["a reply"] * len(rows)

        batcher: Batcher[Held, str] = Batcher(
            answer, max_rows=1, max_waiting=1, wait=BatchWait(0.0), **UNBOUND
        )
        rows: list[weakref.ref[Held]] = []

        async def ask(patience_s: float = 20.0) -> str:
            row = Held()
            rows.append(weakref.ref(row))
            try:
                return (await batcher.submit("a", row, patience_s)).reply
            except (QueueFullError, LateError, ZeroDivisionError) as error:
                return type(error).__name__

        asks = [asyncio.create_task(ask())]
        if end in ("full", "late", "hung up"):
            await asyncio.sleep(0.01)
            asks.append(asyncio.create_task(ask(0.01 if end == "late" else 20.0)))
            await asyncio.sleep(0)
        if end == "full":
            assert await ask() == "QueueFullError"
        if end == "late":
            assert await asks[1] == "LateError"
        if end == "hung up":
            asks.pop().cancel()
        go_on.set()
        await asyncio.gather(*asks)
        await asyncio.sleep(0)
        assert [row() for row in rows] == [None] * len(rows)

    gc.disable()
    try:
        play(scene)
    finally:
        gc.enable()


def test_rows_of_several_places_fill_a_batch_sooner():
    async def scene() -> None:
        engine = Engine(is_open=False)
        batcher: Batcher[str, str] = Batcher(
            engine,
            max_rows=4,
            max_waiting=20,
            wait=BatchWait(0.0),
            size_of=lambda row: int(row[1]),
            **UNBOUND,
        )
        asked = await start(batcher, "a1", "b3", "c2", "d2", "e9", "f1")
        engine.open.set()
        assert await asyncio.gather(*asked) == ["A1", "B3", "C2", "D2", "E9", "F1"]
        assert engine.batches == [["a1", "b3"], ["c2", "d2"], ["e9"], ["f1"]]

    play(scene)


def test_as_many_batches_as_may_are_under_way_and_the_next_gathers_meanwhile():
    async def scene() -> None:
        engine = Engine(is_open=False)
        batcher: Batcher[str, str] = Batcher(
            engine, max_rows=4, max_waiting=8, wait=BatchWait(0.0), num_at_a_time=2, **UNBOUND
        )
        asked = await start(batcher, "a1")
        asked += await start(batcher, "a2")
        asked += await start(batcher, "a3")
        asked += await start(batcher, "b1")
        assert engine.batches == [["a1"], ["a2"]]
        batcher.num_at_a_time = 3
        engine.open.set()
        assert await asyncio.gather(*asked) == ["A1", "A2", "A3", "B1"]
        assert engine.batches == [["a1"], ["a2"], ["a3", "b1"]]

    play(scene)


@pytest.mark.parametrize("may_cancel", [True, False])
def test_a_batch_that_nobody_waits_for_ends_only_where_it_may(may_cancel: bool):
    async def scene() -> None:
        engine = Engine(is_open=False)
        batcher: Batcher[str, str] = Batcher(
            engine, max_rows=4, max_waiting=8, wait=BatchWait(0.0), may_cancel=may_cancel, **UNBOUND
        )
        gone = await start(batcher, "a1", "a2")
        for one in gone:
            one.cancel()
        (later,) = await start(batcher, "b1")
        # A forward pass goes on in its thread, and the next one waits for it.
        assert engine.batches == ([["a1", "a2"], ["b1"]] if may_cancel else [["a1", "a2"]])
        engine.open.set()
        assert await later == "B1"

    play(scene)
