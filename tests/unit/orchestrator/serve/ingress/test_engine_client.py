"""A dead replica costs one more try; what cannot be helped is told in our words."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayActorError
from ray.serve.exceptions import BackPressureError

from orchestrator.serve.engine_api import Ask, EngineBusyError, EngineUnavailableError, Readiness
from orchestrator.serve.ingress.engine_client import RayEngine

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
