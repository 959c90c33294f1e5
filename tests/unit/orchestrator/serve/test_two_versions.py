"""Ingresses and engines of this version and the one before, which ask each other during an upgrade.

``tests/fixtures/engine-api-0.1.0`` is what version 0.1.0 sends, and the names that it relies on.
"""

import asyncio
import inspect
import json
import pickle
import pkgutil
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import Ask, Call, CallReply, Explanation, Refusal
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.deployment import Ingress
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.factory import FakeEngine, Handle, draw_png, make_replica

WRITTEN = Path(__file__).parents[3] / "fixtures" / "engine-api-0.1.0"
INTERFACE: dict[str, Any] = json.loads((WRITTEN / "interface.json").read_text())
BEFORE = {path.stem: pickle.loads(path.read_bytes()) for path in WRITTEN.glob("*.pickle")}
PNG = draw_png(1)


class EngineBefore(FakeEngine):
    """An engine of the version before: it answers with its own values, whatever it is asked."""

    def __init__(self, reply: CallReply) -> None:
        super().__init__()
        self.reply = reply

    async def backbone(self) -> Any:
        return BEFORE["backbone"]

    async def answer(self, call: Call) -> CallReply:
        self.asks += call.asks
        return replace(self.reply, replies=self.reply.replies * len(call.asks))

    async def explain(self, image: object, ask: Ask, patience_s: float) -> Explanation | Refusal:
        return BEFORE["explanation"]

    async def task(self, name: str) -> Any:
        return BEFORE["state"]

    async def readiness(self) -> Any:
        return BEFORE["readiness"]

    async def stats(self) -> Any:
        return BEFORE["stats"]


def ask_ingress(engine: RayEngine, *asked: tuple[str, str]) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(make_app(engine, await engine.backbone()))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            headers = {"Ship-Task": "bolts"}
            return [
                await client.request(method, path, headers=headers, content=PNG if method == "POST" else None)
                for method, path in asked
            ]

    return asyncio.run(run())


def test_an_engine_answers_the_questions_of_an_ingress_of_the_version_before(
    backbone: Backbone, tmp_path: Path
) -> None:
    assert "trace" not in vars(BEFORE["call"].asks[0]), "the version before has no such field"
    replica = make_replica(backbone, tmp_path)
    try:
        reply = asyncio.run(replica.answer(BEFORE["call"]))
        assert [(found.task, found.version) for found in reply.replies] == [("bolts", 1), ("nuts", 2)]
        image = BEFORE["call"].stacks[0][0]
        explained = asyncio.run(replica.explain(image, BEFORE["ask"], 20.0))
        assert (explained.task, explained.version) == ("bolts", 1)
        assert [state.task for state in asyncio.run(replica.tasks(BEFORE["page"]))] == ["bolts"]
    finally:
        replica._follower.stop()


def test_an_ingress_shows_what_an_engine_of_the_version_before_replies() -> None:
    before = EngineBefore(BEFORE["reply"])
    replies = ask_ingress(
        RayEngine(Handle(before), 30.0),
        ("POST", "/v1/predict"),
        ("POST", "/v1/explain"),
        ("GET", "/v1/tasks/bolts"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    )
    assert [reply.status_code for reply in replies] == [200] * 5, [reply.text for reply in replies]
    predicted, explained, state, ready, _ = replies
    body = predicted.json()
    assert (body["version"], body["decision"], body["decision_because"]) == (1, "unsure", "far")
    assert body["probabilities"] == {"bolts-1": 0.75, "bolts-0": 0.25}
    assert predicted.headers["Ship-Precision"] == "bfloat16"
    assert explained.headers["Ship-Version"] == "1"
    assert state.json()["version"] == 1
    assert ready.json()["num_served"] == 2


def test_a_refusal_of_either_version_is_a_problem_and_one_that_is_not_known_yet_a_failure() -> None:
    [reply] = ask_ingress(RayEngine(Handle(EngineBefore(BEFORE["refused"])), 30.0), ("POST", "/v1/predict"))
    assert reply.status_code == 503
    assert reply.headers["Retry-After"]
    later = CallReply(replies=(Refusal(reason="of_a_later_version", detail="no"),), replica="b")
    [reply] = ask_ingress(RayEngine(Handle(EngineBefore(later)), 30.0), ("POST", "/v1/predict"))
    assert (reply.status_code, reply.json()["type"]) == (500, "urn:ship:problem:failed")


@pytest.mark.parametrize("name", INTERFACE["fields"])
def test_a_value_keeps_the_fields_of_the_version_before_and_gives_new_ones_a_plain_default(name: str) -> None:
    found = {field.name: field for field in fields(pkgutil.resolve_name(name))}
    kept = INTERFACE["fields"][name]
    assert set(kept) <= set(found)
    # What is unpickled of the version before has the class's attribute in their place.
    assert all(found[new].default is not MISSING for new in set(found) - set(kept))


@pytest.mark.parametrize("name", INTERFACE["methods"])
def test_a_deployment_keeps_the_methods_of_the_version_before(name: str) -> None:
    for method, parameters in INTERFACE["methods"][name].items():
        found = list(inspect.signature(getattr(pkgutil.resolve_name(name), method)).parameters.values())[1:]
        assert [one.name for one in found][: len(parameters)] == parameters
        assert all(one.default is not inspect.Parameter.empty for one in found[len(parameters) :])


def test_an_ingress_gives_no_answer_of_another_backbone_and_is_replaced(backbone: Backbone) -> None:
    changed = EngineBefore(replace(BEFORE["reply"], backbone="c" * 64))
    ingress = Ingress([Handle(changed)], Limits(), None)
    ingress.check_health()

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(await ingress.__serve_build_asgi_app__())
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            return await client.post("/v1/predict", headers={"Ship-Task": "bolts"}, content=PNG)

    reply = asyncio.run(run())
    assert reply.status_code == 503
    assert reply.headers["Retry-After"]
    with pytest.raises(ServeError, match="another backbone"):
        ingress.check_health()
