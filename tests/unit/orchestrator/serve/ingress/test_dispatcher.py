"""Questions of many requests share calls, and no turns, deadlines, loads or errors."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from orchestrator.serve.engine_api import (
    Answer,
    Ask,
    Call,
    CallReply,
    EngineUnavailableError,
    Image,
    Refusal,
)
from orchestrator.serve.ingress.dispatcher import Dispatcher
from orchestrator.serve.options import EngineOptions
from ship.settings.view import View

LOADING = Refusal(reason="not_loaded", detail="it is being loaded", is_loading=True)
FULL = Refusal(reason="busy", detail="full", wait_s=3.0)


class Engines:
    """Engines behind one function: answers a question with the mean of its image, when it is let.

    ``plays`` are replies to questions by task, one a question, before its answers.
    """

    def __init__(self, *names: str, is_open: bool = True) -> None:
        self.names = names or ("a",)
        self.calls: list[Call] = []
        self.num_cancelled = 0
        self.plays: dict[str, list[Refusal]] = {}
        self.error: Exception | None = None
        self.open, self.loaded = asyncio.Event(), asyncio.Event()
        if is_open:
            self.open.set()

    async def __call__(self, call: Call) -> CallReply:
        self.calls.append(call)
        number = len(self.calls) - 1
        try:
            await (self.loaded if call.waits and self.plays.get("cold") == [] else self.open).wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        images = [image for stack in call.stacks for image in stack]
        replies = tuple(self._reply(images[ask.image], ask) for ask in call.asks)
        return CallReply(replies=replies, replica=self.names[number % len(self.names)])

    def _reply(self, image: Image, ask: Ask) -> Answer | Refusal:
        if plays := self.plays.get(ask.task):
            return plays.pop(0)
        label = f"{ask.task}:{int(image.mean())}"
        return Answer(
            task=ask.task,
            version=1,
            digest="d",
            probabilities=((label, 1.0),),
            decision=label,
            batch_rows=1,
            batch_tasks=1,
        )

    @property
    def tasks(self) -> list[list[str]]:
        """Tasks of the questions of each call."""
        return [[ask.task for ask in call.asks] for call in self.calls]


def draw(value: int, shape: tuple[int, ...] = (3, 2, 2)) -> Image:
    return np.full(shape, value, dtype=np.uint8)


def make(
    engines: Engines,
    clock: Callable[[], float] = time.monotonic,
    max_batch_rows: int = 32,
    max_waiting: int = 256,
) -> Dispatcher:
    # No device is too slow.
    options = EngineOptions(
        max_batch_rows=max_batch_rows, max_waiting=max_waiting, max_pass_s=3600.0, max_queue_s=3600.0
    )
    return Dispatcher(engines, options, clock)


async def ask(dispatcher: Dispatcher, task: str, value: int = 0, patience_s: float = 20.0) -> str:
    """The label, or the reason of the refusal."""
    [reply] = await dispatcher.predict([draw(value)], [Ask(task=task)], patience_s)
    return reply.decision if isinstance(reply, Answer) else reply.reason


async def start(*asked: Awaitable[str]) -> list["asyncio.Future[str]"]:
    tasks = [asyncio.ensure_future(one) for one in asked]
    await settle()
    return tasks


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 30.0))


def test_what_comes_while_two_calls_are_under_way_goes_together_and_in_turn():
    async def scene() -> None:
        engines = Engines(is_open=False)
        dispatcher = make(engines, max_batch_rows=4)
        first = await start(ask(dispatcher, "x", 1))
        first += await start(ask(dispatcher, "x", 2))
        rest = await start(*(ask(dispatcher, "flood", value) for value in range(6)), ask(dispatcher, "b", 7))
        engines.open.set()
        assert await asyncio.gather(*first) == ["x:1", "x:2"]
        assert await asyncio.gather(*rest) == [*(f"flood:{value}" for value in range(6)), "b:7"]
        assert engines.tasks == [["x"], ["x"], ["flood", "b", "flood", "flood"], ["flood", "flood", "flood"]]

    play(scene)


def test_a_lone_question_goes_at_once():
    async def scene() -> None:
        engines = Engines()
        assert await ask(make(engines), "a", 9) == "a:9"
        assert engines.tasks == [["a"]]

    play(scene)


def test_questions_about_one_image_send_it_once_and_each_shape_is_one_array():
    async def scene() -> None:
        engines = Engines(is_open=False)
        dispatcher = make(engines)
        await start(ask(dispatcher, "x"), ask(dispatcher, "y"))
        tiled, whole = draw(5, (4, 3, 2, 2)), draw(6)
        asks = [
            Ask(task="t", image=0, view=View(tiles="2x2")),
            Ask(task="a", image=1),
            Ask(task="b", image=1),
        ]
        request = asyncio.ensure_future(dispatcher.predict([tiled, whole], asks, 20.0))
        other = await start(ask(dispatcher, "c", 7))
        engines.open.set()
        assert [reply.decision for reply in await request if isinstance(reply, Answer)] == [
            "t:5",
            "a:6",
            "b:6",
        ]
        assert await other[0] == "c:7"
        shapes = {stack.shape for stack in engines.calls[-1].stacks}
        assert shapes == {(2, 3, 2, 2), (1, 4, 3, 2, 2)}

    play(scene)


def test_a_prompt_that_is_being_loaded_holds_up_its_own_question_alone():
    async def scene() -> None:
        engines = Engines()
        engines.plays["cold"] = [LOADING]
        dispatcher = make(engines)
        cold, warm = await start(ask(dispatcher, "cold", 1), ask(dispatcher, "warm", 2))
        assert (cold.done(), await warm) == (False, "warm:2")
        assert await ask(dispatcher, "warm", 3) == "warm:3", "calls go on meanwhile"
        engines.loaded.set()
        assert await cold == "cold:1"
        waiting = [call for call in engines.calls if call.waits]
        assert [[ask.task for ask in call.asks] for call in waiting] == [["cold"]]

    play(scene)


def test_what_waits_for_loads_takes_no_turn_of_others():
    async def scene() -> None:
        engines = Engines()
        engines.plays["cold"] = [LOADING] * 5
        dispatcher = make(engines)
        cold = await start(*(ask(dispatcher, "cold") for _ in range(5)))
        assert await asyncio.gather(*(ask(dispatcher, "warm", value) for value in range(3))) == [
            f"warm:{value}" for value in range(3)
        ]
        engines.loaded.set()
        assert await asyncio.gather(*cold) == ["cold:0"] * 5

    play(scene)


def test_a_shadow_waits_for_nothing():
    async def scene() -> None:
        engines = Engines()
        engines.plays["cold"] = [LOADING]
        [reply] = await make(engines).predict([draw(0)], [Ask(task="cold", is_background=True)], 2.0)
        assert reply == LOADING
        assert len(engines.calls) == 1

    play(scene)


def test_patience_is_each_questions_own_and_what_is_left_of_it():
    now_s = 100.0

    async def scene() -> None:
        nonlocal now_s
        engines = Engines(is_open=False)
        dispatcher = make(engines, lambda: now_s)
        asked = await start(ask(dispatcher, "x"))
        asked += await start(ask(dispatcher, "y"))
        asked += await start(ask(dispatcher, "short", 0, 10.0), ask(dispatcher, "long", 0, 20.0))
        now_s += 2.0
        engines.open.set()
        await asyncio.gather(*asked)
        assert engines.calls[2].patience_s == (8.0, 18.0)

    play(scene)


def test_what_has_no_turn_in_time_is_late_and_is_never_sent():
    async def scene() -> None:
        engines = Engines(is_open=False)
        dispatcher = make(engines)
        await start(ask(dispatcher, "x"))
        await start(ask(dispatcher, "y"))
        assert await ask(dispatcher, "hasty", patience_s=0.01) == "late"
        engines.open.set()
        await settle()
        assert engines.tasks == [["x"], ["y"]]

    play(scene)


def test_a_client_that_hangs_up_in_the_queue_is_never_sent():
    async def scene() -> None:
        engines = Engines(is_open=False)
        dispatcher = make(engines)
        first = await start(ask(dispatcher, "x"))
        first += await start(ask(dispatcher, "y"))
        gone, kept = await start(ask(dispatcher, "gone"), ask(dispatcher, "kept"))
        gone.cancel()
        await settle()
        engines.open.set()
        assert await kept == "kept:0"
        assert engines.tasks == [["x"], ["y"], ["kept"]]

    play(scene)


def test_a_call_is_cancelled_once_nobody_waits_for_any_of_it():
    async def scene() -> None:
        engines = Engines(is_open=False)
        dispatcher = make(engines)
        both = await start(ask(dispatcher, "x"), ask(dispatcher, "y"))
        both[0].cancel()
        await settle()
        assert engines.num_cancelled == 0, "the other one still waits"
        both[1].cancel()
        await settle()
        assert engines.num_cancelled == 1
        # Its place is free again, and so is that of another.
        later = await start(ask(dispatcher, "z"))
        later += await start(ask(dispatcher, "z"))
        assert len(engines.calls) == 3
        engines.open.set()
        assert await asyncio.gather(*later) == ["z:0", "z:0"]

    play(scene)


def test_a_full_queue_refuses_the_flood_and_says_for_how_long():
    async def scene() -> None:
        engines = Engines(is_open=False)
        dispatcher = make(engines, max_waiting=3)
        asked = await start(ask(dispatcher, "x"))
        asked += await start(ask(dispatcher, "x"))
        asked += await start(*(ask(dispatcher, "flood") for _ in range(4)), ask(dispatcher, "b"))
        engines.open.set()
        assert await asyncio.gather(*asked) == ["x:0", "x:0", "flood:0", "flood:0", "busy", "busy", "b:0"]

    play(scene)


@pytest.mark.parametrize(
    ("names", "num_calls", "expected"),
    [(("a",), 1, "busy"), (("a", "b"), 2, "full:0")],
    ids=["one engine", "two engines"],
)
def test_what_one_of_several_engines_has_no_room_for_is_asked_once_more(
    names: Sequence[str], num_calls: int, expected: str
):
    async def scene() -> None:
        engines = Engines(*names)
        dispatcher = make(engines)
        for _ in range(2):
            await ask(dispatcher, "seen")
        engines.plays["full"] = [FULL]
        assert await ask(dispatcher, "full") == expected
        assert len(engines.calls) == 2 + num_calls

    play(scene)


def test_a_second_refusal_is_told_with_the_time_to_stay_away():
    async def scene() -> None:
        engines = Engines("a", "b")
        dispatcher = make(engines)
        for _ in range(2):
            await ask(dispatcher, "seen")
        engines.plays["full"] = [FULL, FULL]
        [reply] = await dispatcher.predict([draw(0)], [Ask(task="full")], 20.0)
        assert reply == FULL

    play(scene)


def test_each_engine_that_answers_has_two_calls_under_way():
    now_s = 0.0

    async def scene() -> None:
        nonlocal now_s
        engines = Engines("a", "b")
        dispatcher = make(engines, lambda: now_s)

        async def count_calls() -> int:
            before, asked = len(engines.calls), []
            engines.open.clear()
            for _ in range(6):
                asked += await start(ask(dispatcher, "x"))
            found = len(engines.calls) - before
            engines.open.set()
            await asyncio.gather(*asked)
            return found

        assert await count_calls() == 2, "one is known of at first"
        assert await count_calls() == 4
        engines.names, now_s = ("a",), 61.0
        await ask(dispatcher, "x")
        assert await count_calls() == 2, "the other one is gone"

    play(scene)


def test_an_engine_that_cannot_be_asked_is_the_error_of_each_question_of_the_call():
    async def scene() -> None:
        engines = Engines()
        engines.error = EngineUnavailableError("no engine")
        dispatcher = make(engines)
        found = await asyncio.gather(
            *(ask(dispatcher, task) for task in ("a", "b")),
            dispatcher.predict([draw(0)], [Ask(task="c"), Ask(task="d")], 20.0),
            return_exceptions=True,
        )
        assert [type(error) for error in found] == [EngineUnavailableError] * 3
        engines.error = None
        assert await ask(dispatcher, "a") == "a:0"

    play(scene)


def test_a_refusal_of_one_question_is_no_others():
    async def scene() -> None:
        engines = Engines()
        engines.plays["nuts"] = [Refusal(reason="unknown_task", detail="no such task")]
        replies = await make(engines).predict(
            [draw(1)], [Ask(task="bolts"), Ask(task="nuts"), Ask(task="bolts", key="k")], 20.0
        )
        assert [getattr(reply, "reason", "answer") for reply in replies] == [
            "answer",
            "unknown_task",
            "answer",
        ]
        [call] = engines.calls
        assert {ask.key for ask in call.asks} == {None, "k"}
        assert [stack.shape for stack in call.stacks] == [(1, 3, 2, 2)]

    play(scene)
