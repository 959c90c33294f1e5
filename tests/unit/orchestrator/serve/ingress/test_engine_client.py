"""A dead replica costs one more try; what cannot be helped is told in our words."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayActorError
from ray.serve.exceptions import BackPressureError

from orchestrator.serve.engine_api import (
    Ask,
    Call,
    CallReply,
    EngineBusyError,
    EngineUnavailableError,
    Readiness,
    Refusal,
)
from orchestrator.serve.ingress.engine_client import RayEngine
from tests.unit.orchestrator.serve.factory import Handle as ReplicaHandle

READY = Readiness(ready=True, detail="")


class Method:
    """One method of a deployment handle, which plays what it was given, a call each."""

    def __init__(self, *plays: object) -> None:
        self.plays = list(plays)

    def remote(self, *_: object) -> Awaitable[Any]:
        async def play() -> object:
            result = self.plays.pop(0)
            if isinstance(result, Exception):
                raise result
            if callable(result):
                return await result()
            return result

        return asyncio.ensure_future(play())


class Handle:
    """A deployment handle with the one method that is called here."""

    def __init__(self, *plays: object) -> None:
        self.readiness = Method(*plays)


def ask(handle: Handle, timeout_s: float = 30.0) -> Readiness:
    return asyncio.run(RayEngine(handle, timeout_s).readiness())


def test_an_answer_is_passed_on():
    assert ask(Handle(READY)) is READY


@pytest.mark.parametrize("error", [RayActorError(), ActorDiedError()])
def test_a_dead_replica_costs_one_more_try(error: Exception):
    assert ask(Handle(error, READY)) is READY


def test_two_deaths_are_enough():
    handle = Handle(RayActorError(), RayActorError(), READY)
    with pytest.raises(EngineUnavailableError, match="try again"):
        ask(handle)
    assert handle.readiness.plays == [READY]


def test_a_full_queue_is_not_tried_again():
    handle = Handle(BackPressureError(5, 5), READY)
    with pytest.raises(EngineBusyError):
        ask(handle)
    assert handle.readiness.plays == [READY]


def test_an_engine_that_does_not_answer_is_given_up():
    forever: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(3600)  # noqa: E731 - a play, not a function
    with pytest.raises(EngineUnavailableError, match=r"within 0\.01 s"):
        ask(Handle(forever), timeout_s=0.01)


def test_errors_of_its_own_code_are_passed_on():
    with pytest.raises(ZeroDivisionError):
        ask(Handle(ZeroDivisionError(), READY))


def test_an_explanation_is_asked_for_with_all_that_was_said():
    seen: list[tuple[object, ...]] = []

    class Explains:
        class explain:  # noqa: N801 - a method of a handle
            @staticmethod
            def remote(*args: object) -> Awaitable[str]:
                seen.append(args)
                return asyncio.ensure_future(asyncio.sleep(0, "explained"))

    image_3HW, ask_ = np.zeros((3, 2, 2), dtype=np.uint8), Ask(task="bolts", version=2, key="k")
    assert asyncio.run(RayEngine(Explains(), 30.0).explain(image_3HW, ask_, 1.5)) == "explained"
    assert seen == [(image_3HW, ask_, 1.5)]


REQUEST: ContextVar[str | None] = ContextVar("request", default=None)


class Replica:
    """Refuses each question of a call, once it is let; dies as often as it is told to."""

    def __init__(self, num_deaths: int = 0, *, is_open: bool = True) -> None:
        self.num_deaths, self.num_cancelled = num_deaths, 0
        self.calls: list[Call] = []
        self.requests: set[str | None] = set()
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    async def answer(self, call: Call) -> CallReply:
        self.calls.append(call)
        self.requests.add(REQUEST.get())
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if len(self.calls) <= self.num_deaths:
            raise ActorDiedError
        refusals = (Refusal(reason="no_champion", detail=ask.task) for ask in call.asks)
        return CallReply(replies=tuple(refusals), replica="a")


async def predict(engine: RayEngine, task: str, request: str | None = None) -> str:
    REQUEST.set(request)
    [reply] = await engine.predict([np.zeros((3, 2, 2), np.uint8)], [Ask(task=task)], 20.0)
    assert isinstance(reply, Refusal)
    return reply.detail


def test_questions_of_a_replica_that_died_are_asked_again_together():
    async def scene() -> None:
        replica = Replica(num_deaths=1)
        engine = RayEngine(ReplicaHandle(replica), 30.0)
        assert await asyncio.gather(predict(engine, "bolts"), predict(engine, "nuts")) == ["bolts", "nuts"]
        assert [[ask.task for ask in call.asks] for call in replica.calls] == [["bolts", "nuts"]] * 2

    asyncio.run(scene())


def test_a_call_belongs_to_no_request_and_ends_when_nobody_waits():
    async def scene() -> None:
        replica = Replica(is_open=False)
        engine = RayEngine(ReplicaHandle(replica), 30.0)
        both = [asyncio.create_task(predict(engine, task, f"of {task}")) for task in ("bolts", "nuts")]
        while not replica.calls:
            await asyncio.sleep(0)
        assert replica.requests == {None}
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        while not replica.num_cancelled:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scene(), 30.0))
