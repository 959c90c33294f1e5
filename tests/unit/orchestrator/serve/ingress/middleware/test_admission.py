"""Limits on requests and bytes inside: shared between accounts first, then between an account's tasks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from orchestrator.serve.engine_api import Refusal
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.ingress.middleware.admission import Admission, Busy, Place
from orchestrator.serve.options import Limits
from orchestrator.store.documents.tokens import Scope
from ship.backbone import Backbone
from ship.images.decoding import decode_pixels
from tests.unit.orchestrator.serve.caller import PNG, assert_problem, decode_with
from tests.unit.orchestrator.serve.factory import FakeEngine
from tests.unit.orchestrator.serve.ingress.known_tokens import Known

ONE, TWO = "Token 'line-1'", "Token 'line-2'"


@pytest.fixture
def admission() -> Admission:
    admission = Admission(Limits(max_inside=12, max_inside_bytes=1200))
    for task in ("bolts", "nuts", "gears"):
        admission.note_task(task, exists=True)
    return admission


def enter(admission: Admission, account: str, task: str | None, times: int) -> list[Place]:
    """Places of the requests that get in."""
    found = [admission.enter(account, task) for _ in range(times)]
    return [place for place in found if isinstance(place, Place)]


def refusal(admission: Admission, account: str, task: str | None, num_bytes: int = 0) -> str:
    busy = admission.enter(account, task, num_bytes)
    assert isinstance(busy, Busy)
    return busy.detail


def test_one_account_alone_may_have_half_of_the_places_and_one_task_a_third(admission: Admission) -> None:
    assert len(enter(admission, ONE, "bolts", 12)) == 4
    assert refusal(admission, ONE, "bolts").startswith("Task 'bolts' already uses its full share")
    assert len(enter(admission, ONE, "nuts", 12)) == 2
    assert refusal(admission, ONE, "gears").startswith("Token 'line-1' already uses its full share")
    assert len(enter(admission, TWO, "bolts", 12)) == 2
    assert len(enter(admission, TWO, "nuts", 12)) == 1
    assert admission.num_inside == 9


def test_floods_leave_room_for_the_next_account(admission: Admission) -> None:
    inside = [len(enter(admission, account, None, 100)) for account in ("a", "b", "c", "d", "e")]
    assert all(inside)
    assert admission.num_inside == sum(inside) <= 12


def test_names_that_do_not_exist_count_as_one(admission: Admission) -> None:
    """Else a client would take its account's whole share by making up names, or forget a task's."""
    for number in range(12):
        admission.enter(ONE, f"invented-{number}")
    assert admission.num_inside == 4
    assert "for new tasks" in refusal(admission, ONE, "invented-99")
    assert enter(admission, ONE, "bolts", 1)
    admission.note_task("bolts", exists=False)
    assert "for new tasks" in refusal(admission, ONE, "bolts")


def test_a_request_that_is_done_no_longer_counts(admission: Admission) -> None:
    places = enter(admission, ONE, "bolts", 12)
    for place in places:
        assert admission.grow(place, 10) is None
    assert (admission.num_inside, admission.num_bytes) == (4, 40)
    for place in places:
        admission.leave(place)
    assert (admission.num_inside, admission.num_bytes) == (0, 0)
    assert (admission._accounts, admission._tasks) == ({}, {}), "nothing is kept of it"
    assert len(enter(admission, TWO, "nuts", 12)) == 4


def test_bytes_count_as_they_arrive(admission: Admission) -> None:
    idle = [admission.enter(ONE, "bolts", 400) for _ in range(3)]
    assert all(isinstance(place, Place) for place in idle), "announced, they take nothing"
    first, second, _ = idle
    assert admission.grow(first, 300) is None
    assert admission.grow(second, 200) is None
    assert "Task 'bolts'" in admission.grow(second, 1).detail
    assert isinstance(other := admission.enter(TWO, "bolts", 200), Place)
    assert admission.grow(other, 300) is None, "the account has the place that others left it"
    assert "no room" in refusal(admission, "Token 'line-3'", "nuts", 401)
    admission.leave(first)
    assert admission.num_bytes == 500
    assert admission.grow(second, 100) is None


def test_a_body_larger_than_all_room_gets_through_alone(admission: Admission) -> None:
    place = admission.enter(ONE, "bolts", 5000)
    assert isinstance(place, Place)
    assert admission.grow(place, 5000) is None
    assert "no room" in refusal(admission, TWO, "nuts", 1)
    admission.leave(place)
    assert isinstance(admission.enter(TWO, "nuts", 1), Place)


def test_a_task_that_there_is_no_room_for_is_kept_out_for_a_while_and_no_other() -> None:
    now_s = 100.0
    admission = Admission(Limits(), clock=lambda: now_s)
    admission.keep_out("bolts", 4.0)
    admission.keep_out("nuts", 1.0)
    now_s = 102.0
    busy = admission.enter(ONE, "bolts")
    assert isinstance(busy, Busy)
    assert (busy.wait_s, "share" in busy.detail) == (2.0, True)
    assert isinstance(admission.enter(ONE, "nuts"), Place)
    assert isinstance(admission.enter(ONE, "gears"), Place)
    now_s = 104.0
    assert isinstance(admission.enter(ONE, "bolts"), Place)
    admission.keep_out("caps", 1.0)
    assert list(admission._kept_out) == ["caps"], "of the others nothing is kept"


class Door:
    """An application with two lines' tokens; what it is asked runs in one event loop."""

    def __init__(self, backbone: Backbone, limits: Limits, engine: FakeEngine | None = None) -> None:
        self.engine, self.known = engine or FakeEngine(), Known()
        self.line_1 = self.known.make("line-1", Scope(predict=("line-1-*", "bolts")))
        self.line_2 = self.known.make("line-2", Scope(predict=("bolts",)))
        self.app = make_app(self.engine, backbone.info, limits, tokens=self.known)
        decode_with(self.app, Decoder(backbone.info, limits, decode_pixels))
        self.admission: Admission = self.app.state.front.admission

    async def ask(
        self, token: str, task: str, body: Any = PNG, path: str = "/v1/predict", **headers: str
    ) -> httpx.Response:
        named = {"Ship-Task": task, "Authorization": f"Bearer {token}", "Content-Type": "image/png"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://x") as client:
            return await client.post(path, content=body, headers={**named, **headers})

    async def hold(self, num_inside: int, *asked: Any) -> list[asyncio.Task[httpx.Response]]:
        """Requests under way, once ``num_inside`` are inside."""
        tasks = [asyncio.create_task(one) for one in asked]
        for _ in range(100_000):
            if self.admission.num_inside == num_inside:
                return tasks
            await asyncio.sleep(0)
        raise AssertionError(f"{self.admission.num_inside} are inside")


async def stalled(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    await asyncio.Event().wait()


async def cancel(tasks: list[asyncio.Task[httpx.Response]]) -> list[int]:
    """Statuses of those that were answered."""
    done = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result().status_code for task in done]


@pytest.mark.parametrize("is_invented", [True, False])
def test_a_token_that_floods_takes_no_place_of_another(backbone: Backbone, is_invented: bool) -> None:
    door = Door(backbone, Limits(max_inside=12))

    async def flood() -> tuple[httpx.Response, list[int]]:
        names = [f"line-1-{number}" if is_invented else "line-1-a" for number in range(50)]
        held = await door.hold(4, *(door.ask(door.line_1, name, stalled()) for name in names))
        return await door.ask(door.line_2, "bolts"), await cancel(held)

    honest, refused = asyncio.run(flood())
    assert (honest.status_code, refused) == (200, [429] * 46)
    assert door.admission.num_inside == 0


def test_idle_connections_that_announce_much_take_nothing(backbone: Backbone) -> None:
    door = Door(backbone, Limits())

    async def announce() -> httpx.Response:
        sent = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(64 << 20)}
        path = "/v1/predict:batch"
        idle = [door.ask(door.line_1, f"line-1-{n}", stalled(), path, **sent) for n in range(8)]
        held = await door.hold(8, *idle)
        honest = await door.ask(door.line_2, "bolts")
        await cancel(held)
        return honest

    assert asyncio.run(announce()).status_code == 200


def test_a_body_that_stops_arriving_is_refused_and_gives_its_place_back(backbone: Backbone) -> None:
    door = Door(backbone, Limits(body_idle_s=0.05))
    reply = asyncio.run(door.ask(door.line_2, "bolts", stalled(PNG[:100])))
    assert "no byte of the body arrived for 0.05 s" in assert_problem(reply, 408, "body-late")
    assert reply.headers["connection"] == "close"
    assert (door.admission.num_inside, door.admission.num_bytes) == (0, 0)


def test_a_body_beyond_its_share_is_refused_as_it_arrives(backbone: Backbone) -> None:
    door = Door(backbone, Limits(max_inside_bytes=1000))

    async def grow() -> httpx.Response:
        held = await door.hold(1, door.ask(door.line_1, "line-1-a", stalled(bytes(400))))
        while door.admission.num_bytes < 400:
            await asyncio.sleep(0)
        reply = await door.ask(door.line_1, "line-1-b", stalled(bytes(300), bytes(300)))
        await cancel(held)
        return reply

    reply = asyncio.run(grow())
    assert "already uses its full share" in assert_problem(reply, 429, "busy")
    assert int(reply.headers["retry-after"]) >= 1


def test_what_an_engine_does_not_know_is_no_task(backbone: Backbone) -> None:
    """A task has a share of its own once it was answered, and no longer once it has left the catalog."""
    door = Door(backbone, Limits())
    for refused, known in ((None, {"bolts"}), ("unknown_task", set())):
        door.engine.refusal = None if refused is None else Refusal(reason=refused, detail="")
        asyncio.run(door.ask(door.line_2, "bolts"))
        assert door.admission._known == known


def test_without_access_control_the_address_is_the_account(backbone: Backbone) -> None:
    app = make_app(FakeEngine(), backbone.info, Limits(max_inside=12))
    admission: Admission = app.state.front.admission

    async def ask(host: str, body: Any) -> int:
        transport = httpx.ASGITransport(app, client=(host, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            reply = await client.post("/v1/predict", content=body, headers={"Ship-Task": "bolts"})
        return reply.status_code

    async def flood() -> int:
        held = [asyncio.create_task(ask("10.0.0.1", stalled())) for _ in range(20)]
        while admission.num_inside < 4:
            await asyncio.sleep(0)
        status = await ask("10.0.0.2", PNG)
        for one in held:
            one.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        return status

    assert asyncio.run(flood()) == 200
