"""A shadow is asked after the reply, compared and counted, and costs no request anything."""

import asyncio
from collections.abc import Sequence

import httpx
import numpy as np
import pytest

from orchestrator.serve.engine_api import (
    Answer,
    Ask,
    EngineBusyError,
    EngineUnavailableError,
    Image,
    Refusal,
    ServingState,
)
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.asking import Picture
from orchestrator.serve.ingress.shadow import REST_S, Shadows
from orchestrator.store.documents.catalog import Canary
from ship.backbone import Backbone
from ship.settings.view import View
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png
from tests.unit.orchestrator.serve.ingress.openapi.schema import check_schema


async def decode(view: View, backbone: str) -> Image:
    return np.zeros((3, 4, 4), dtype=np.uint8)


PICTURE = Picture(decode)


def answer(version: int = 1, bad: float = 0.75, shadow_version: int | None = 3, **labels: float) -> Answer:
    """An answer with two labels, unless others are given."""
    found = labels or {"bad": bad, "good": 1.0 - bad}
    return Answer(
        task="bolts",
        version=version,
        digest="d" * 64,
        probabilities=tuple(sorted(found.items(), key=lambda pair: -pair[1])),
        decision="good",
        batch_rows=1,
        batch_tasks=1,
        shadow_version=shadow_version,
    )


class Engine(FakeEngine):
    """Version 3 answers what it is told to, when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Answer | Refusal | Exception] = []
        self.asks: list[Ask] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        self.asks += asks
        await self.gate.wait()
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return [reply]


class Clock:
    """Seconds that pass when told to."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def settle() -> None:
    """Wait for all comparisons."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def compare(*pairs: tuple[Answer, Answer | Refusal | Exception], engine: Engine | None = None) -> Shadows:
    """Compare one after another."""

    async def run() -> Shadows:
        asked = engine or Engine()
        shadows = Shadows(asked)
        for given, reply in pairs:
            asked.replies.append(reply)
            shadows.compare(given, PICTURE)
            await settle()
        return shadows

    return asyncio.run(run())


def test_answers_are_compared_by_label_and_probability():
    shadows = compare(
        (answer(bad=0.75), answer(3, bad=0.5001)),
        (answer(bad=0.25), answer(3, bad=0.25)),
        (answer(bad=0.9), answer(3, bad=0.4)),
    )
    found = shadows.describe("bolts", 3)
    assert (found["version"], found["compared"], found["agreed"]) == (3, 3, 2)
    assert found["mean_difference"] == pytest.approx((0.2499 + 0.0 + 0.5) / 3)


def test_the_shadow_is_asked_by_its_number_without_a_key_and_no_request_waits():
    engine = Engine()
    compare((answer(), answer(3)), engine=engine)
    assert engine.asks == [Ask(task="bolts", version=3, is_background=True)]


def test_a_label_that_the_shadow_does_not_know_has_no_probability_there():
    shadows = compare((answer(bad=0.8), answer(3, good=0.6, scratched=0.4)))
    assert shadows.describe("bolts", 3)["mean_difference"] == pytest.approx(0.8)
    assert shadows.describe("bolts", 3)["agreed"] == 0


def test_counts_begin_anew_when_either_version_changes():
    shadows = compare((answer(1), answer(3)), (answer(1), answer(3)))
    assert shadows.describe("bolts", 3)["champion"] == 1
    shadows = compare((answer(1), answer(3)), (answer(1), answer(3)), (answer(2), answer(3)))
    found = shadows.describe("bolts", 3)
    assert (found["champion"], found["compared"]) == (2, 1)
    shadows = compare((answer(1), answer(3)), (answer(1, shadow_version=4), answer(4)))
    assert shadows.describe("bolts", 4)["compared"] == 1
    assert shadows.describe("bolts", 3)["compared"] == 0


def test_a_task_without_a_shadow_is_not_compared():
    engine = Engine()
    shadows = compare((answer(shadow_version=None), answer(3)), engine=engine)
    assert engine.asks == []
    assert shadows.describe("bolts", None) is None
    assert shadows.describe("bolts", 3) == {
        "version": 3,
        "champion": None,
        "compared": 0,
        "agreed": 0,
        "mean_difference": None,
    }


def test_so_many_are_under_way_and_others_are_left_out():
    async def run() -> None:
        engine = Engine()
        engine.gate.clear()
        shadows = Shadows(engine, max_under_way=2)
        engine.replies = [answer(3)] * 10
        for _ in range(5):
            shadows.compare(answer(), PICTURE)
            await asyncio.sleep(0)
        assert len(engine.asks) == 2
        engine.gate.set()
        await settle()
        assert shadows.describe("bolts", 3)["compared"] == 2
        shadows.compare(answer(), PICTURE)
        await settle()
        assert shadows.describe("bolts", 3)["compared"] == 3

    asyncio.run(run())


@pytest.mark.parametrize(
    "reply",
    [
        EngineBusyError("full"),
        EngineUnavailableError("dead"),
        Refusal(reason="busy", detail="full"),
        Refusal(reason="late", detail="late"),
    ],
)
def test_an_engine_that_is_busy_is_left_alone_for_a_while(reply: Exception | Refusal):
    async def run() -> None:
        engine, clock = Engine(), Clock()
        shadows = Shadows(engine, clock=clock)
        engine.replies = [reply, answer(3)]
        for _ in range(3):
            shadows.compare(answer(), PICTURE)
            await settle()
        assert len(engine.asks) == 1
        clock.now_s += REST_S
        shadows.compare(answer(), PICTURE)
        await settle()
        assert shadows.describe("bolts", 3)["compared"] == 1

    asyncio.run(run())


def test_a_shadow_that_cannot_answer_is_not_counted(caplog: pytest.LogCaptureFixture):
    refusal = Refusal(reason="not_loaded", detail="changed")
    shadows = compare((answer(), refusal), (answer(), ZeroDivisionError()), (answer(), answer(3)))
    assert shadows.describe("bolts", 3)["compared"] == 1
    assert "could not be compared" in caplog.text


class EngineOfApp(FakeEngine):
    """Its version 2 has the shadow 3, which disagrees, and answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        if asks[0].version is None:
            return [answer(2, bad=0.75)]
        await self.gate.wait()
        return [answer(3, bad=0.25, shadow_version=None)]

    async def task(self, name: str) -> ServingState | None:
        return ServingState(
            task="bolts",
            version=2,
            digest="d" * 64,
            labels=("good", "bad"),
            wanted_version=2,
            wanted_digest="d" * 64,
            problem=None,
            canary=Canary(version=4, share=0.05),
            shadow_version=3,
        )


def test_the_endpoint_replies_before_the_shadow_does_and_tells_how_they_compare(backbone: Backbone):
    async def run() -> tuple[dict[str, object], dict[str, object]]:
        engine = EngineOfApp()
        transport = httpx.ASGITransport(make_app(engine, backbone.info))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            reply = await client.post(
                "/v1/predict",
                content=draw_png(),
                headers={"Ship-Task": "bolts", "Content-Type": "image/png"},
            )
            assert reply.json()["version"] == 2
            before = (await client.get("/v1/tasks/bolts")).json()
            engine.gate.set()
            await asyncio.sleep(0.01)
            return before, (await client.get("/v1/tasks/bolts")).json()

    before, after = asyncio.run(run())
    assert before["shadow"]["compared"] == 0
    assert after["shadow"] == {
        "version": 3,
        "champion": 2,
        "compared": 1,
        "agreed": 0,
        "mean_difference": 0.5,
    }
    assert "shadow_version" not in after
    for body in (before, after):
        check_schema(body, {"$ref": "#/components/schemas/TaskReply"})


def test_comparisons_are_counted_by_task(backbone: Backbone):
    """The first nine of a task are among the others, as those of tasks that are asked seldom are."""

    async def run() -> list[str]:
        engine = Engine()
        transport = httpx.ASGITransport(make_app(engine, backbone.info))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            for number in range(12):
                engine.replies = [answer(bad=0.75), answer(3, bad=0.75 if number % 2 else 0.25)]
                reply = await client.post(
                    "/v1/predict",
                    content=draw_png(),
                    headers={"Ship-Task": "bolts", "Content-Type": "image/png"},
                )
                assert reply.status_code == 200
                while engine.replies:
                    await asyncio.sleep(0.001)
            return (await client.get("/metrics")).text.splitlines()

    lines = asyncio.run(run())
    for line in (
        'ship_shadow_compared_total{task="bolts"} 3.0',
        'ship_shadow_compared_total{task="other"} 9.0',
        'ship_shadow_agreed_total{task="bolts"} 2.0',
        'ship_shadow_agreed_total{task="other"} 4.0',
    ):
        assert line in lines
