"""A request's spans, from the client's header to the forward pass, in an ingress and an engine."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.engine_api import Answer, Ask, Call, EngineUnavailableError, Refusal
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.ingress.engine_inside import EngineInside
from orchestrator.serve.ingress.middleware.access_log import LOGGER
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.factory import FakeEngine, Handle, draw_png, make_labels, make_replica
from tests.unit.orchestrator.spans import Spans

PNG = draw_png(1)
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"
Talk = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def replica(backbone: Backbone, tmp_path: Path, spans: Spans) -> Iterator[EngineReplica]:
    replica = make_replica(backbone, tmp_path, tracer=spans.new_tracer())
    yield replica
    replica._follower.stop()


def converse(engine: Any, backbone: Backbone, spans: Spans, talk: Talk) -> None:
    async def run() -> None:
        transport = httpx.ASGITransport(make_app(engine, backbone.info, tracer=spans.new_tracer()))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            await talk(client)

    asyncio.run(run())


async def predict(client: httpx.AsyncClient, task: str, **headers: str) -> httpx.Response:
    return await client.post("/v1/predict", content=PNG, headers={"Ship-Task": task, **headers})


@pytest.mark.parametrize("is_inside", [False, True], ids=["engine apart", "engine inside"])
def test_a_request_is_one_tree_through_ingress_engine_and_store(
    is_inside: bool,
    replica: EngineReplica,
    backbone: Backbone,
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        headers = {"traceparent": PARENT, "tracestate": "vendor=1", "X-Request-ID": "line-7"}
        reply = await predict(client, "nuts", **headers)
        assert reply.status_code == 200, reply.text
        version, trace, span_id, flags = reply.headers["traceresponse"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "01")
        assert span_id == f"{spans.one('POST /v1/predict').context.span_id:016x}"

    with caplog.at_level(logging.INFO, logger=LOGGER):
        engine = EngineInside(replica, 30.0) if is_inside else RayEngine(Handle(replica), 30.0)
        converse(engine, backbone, spans, talk)
    assert json.loads(caplog.records[-1].message)["trace_id"] == TRACE

    request = spans.one("POST /v1/predict")
    assert request.kind == SpanKind.SERVER
    assert (request.parent.span_id, request.context.trace_state.get("vendor")) == (int(CALLER, 16), "1")
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "ship.request_id": "line-7",
        "ship.task": "nuts",
        "ship.version": 2,
        "ship.digest": request.attributes["ship.digest"],
        "ship.bytes_in": len(PNG),
    }
    assert {tuple(spans.path(span)) for span in spans.all if not span.name.startswith("store.")} >= {
        ("POST /v1/predict",),
        ("POST /v1/predict", "decode"),
        ("POST /v1/predict", "ask"),
        # Of calls to an engine apart.
        *([] if is_inside else [("POST /v1/predict", "ask", "queue")]),
        ("POST /v1/predict", "ask", "answer"),
        ("POST /v1/predict", "ask", "answer", "queue"),
        ("POST /v1/predict", "ask", "answer", "forward"),
    }
    assert {span.context.trace_id for span in spans.all} == {int(TRACE, 16)}
    answer, forward = spans.one("answer"), spans.one("forward")
    assert (spans.one("ask").kind, answer.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert answer.attributes["ship.digest"] == request.attributes["ship.digest"]
    assert [link.context.span_id for link in forward.links] == [answer.context.span_id]
    assert forward.attributes["ship.rows"] == 1
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}
    # Neither a label nor a pixel leaves.
    assert not any(label in spans.texts() for label in make_labels("nuts", 3, 2))


def test_a_prompt_is_loaded_below_the_question_that_waits_for_it(
    replica: EngineReplica, backbone: Backbone, spans: Spans, tmp_path: Path
) -> None:
    assert replica._residency.wait_loaded(30.0)
    [held] = asyncio.run(replica.stats())
    # Not both prompts have room: one is loaded for the request that asks for it.
    small = make_replica(
        backbone, tmp_path / "small", tracer=spans.new_tracer(), slot_bytes=held.resident_bytes - 1
    )

    async def talk(client: httpx.AsyncClient) -> None:
        for task in ("bolts", "nuts"):
            assert (await predict(client, task)).status_code == 200

    try:
        assert small._residency.wait_loaded(30.0)
        converse(RayEngine(Handle(small), 30.0), backbone, spans, talk)
    finally:
        small._follower.stop()
    for load in spans.named("load prompt"):
        assert spans.path(load)[:3] == ["POST /v1/predict", "ask", "answer"]
        assert load.attributes["ship.digest"]
    read = spans.named("store.get")
    assert read
    assert {spans.path(span)[-2] for span in read} == {"load prompt"}
    assert all(span.attributes["ship.key"].startswith("artifacts/") for span in read)
    assert "wait for prompt" in {span.name for span in spans.all}


def test_one_forward_pass_is_linked_with_the_questions_of_all_its_requests(
    replica: EngineReplica, backbone: Backbone, spans: Spans
) -> None:
    asks = tuple(
        Ask(task=task, trace=f"00-{number:032x}-{number:016x}-01")
        for number, task in enumerate(("bolts", "nuts") * 4, start=1)
    )
    pixels = np.zeros((1, 3, *backbone.image_size), dtype=np.uint8)
    call = Call(stacks=(pixels,), asks=asks, patience_s=(30.0,) * len(asks), waits=True)
    replies = asyncio.run(replica.answer(call)).replies
    assert [type(reply) for reply in replies] == [Answer] * len(asks)
    answered = {
        span.context.span_id: span for span in spans.named("answer") if "ship.digest" in span.attributes
    }
    linked = [link.context.span_id for forward in spans.named("forward") for link in forward.links]
    # Each question is in one pass; a pass has the questions of several traces.
    assert sorted(linked) == sorted(answered)
    assert len(answered) == 8
    assert len({span.context.trace_id for span in answered.values()}) == 8
    assert len(spans.named("forward")) < 8
    for forward in spans.named("forward"):
        for link in forward.links:
            back = [one.context.span_id for one in answered[link.context.span_id].links]
            assert back == [forward.context.span_id]


def test_errors_are_recorded_where_they_are_and_refusals_of_a_client_are_none(
    replica: EngineReplica, backbone: Backbone, spans: Spans
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        assert (await predict(client, "caps")).status_code == 404
        broken = await client.post("/v1/predict", content=PNG[:60], headers={"Ship-Task": "bolts"})
        assert broken.status_code == 422

    converse(RayEngine(Handle(replica), 30.0), backbone, spans, talk)
    assert [span.status.status_code for span in spans.named("POST /v1/predict")] == [StatusCode.UNSET] * 2
    assert spans.one("answer").attributes["ship.refusal"] == "unknown_task"
    assert spans.one("answer").status.status_code == StatusCode.UNSET
    [failed] = [span for span in spans.named("decode") if span.status.status_code == StatusCode.ERROR]
    assert failed.attributes["error.type"] == "Problem"


@pytest.mark.parametrize(
    ("engine", "status"),
    [
        (FakeEngine(error=EngineUnavailableError("at s3://secret")), 503),
        (FakeEngine(error=RuntimeError("at s3://secret")), 500),
        (FakeEngine(refusal=Refusal(reason="late", detail="s3://secret")), 504),
    ],
)
def test_a_reply_of_5xx_fails_its_span(
    engine: FakeEngine, status: int, backbone: Backbone, spans: Spans
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        assert (await predict(client, "bolts")).status_code == status

    converse(engine, backbone, spans, talk)
    request = spans.one("POST /v1/predict")
    assert request.status.status_code == StatusCode.ERROR
    assert request.attributes["error.type"] == str(status)
    assert "secret" not in spans.texts()


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "00-zz-b7ad6b7169203331-01")],
        [("traceparent", f"00-{'0' * 32}-{CALLER}-01")],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("traceparent", "x" * 5000)],
        [],
    ],
)
def test_a_header_that_is_none_begins_a_trace_of_its_own(
    headers: list[tuple[str, str]], backbone: Backbone, spans: Spans
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        sent = [("Ship-Task", "bolts"), *headers]
        reply = await client.post("/v1/predict", content=PNG, headers=sent)
        assert reply.status_code == 200
        assert reply.headers["traceresponse"].split("-")[1] != TRACE

    converse(FakeEngine(), backbone, spans, talk)
    assert spans.one("POST /v1/predict").parent is None


def test_probes_are_not_traced_and_a_path_shows_no_name(backbone: Backbone, spans: Spans) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert "traceresponse" not in (await client.get(path)).headers
        assert (await client.get("/v1/tasks/secret-part?token=secret-token")).status_code == 404
        assert (await client.request("SECRET", "/secret-path")).status_code in (404, 405)

    converse(FakeEngine(), backbone, spans, talk)
    first, second = (dict(span.attributes) for span in spans.all)
    assert first["http.route"] == "/v1/tasks/{task}"
    assert second["http.request.method"] == "_OTHER"
    # The task of a request is in the log, too; what else a client sends is not.
    texts = spans.texts().replace("'ship.task': 'secret-part'", "")
    assert "secret" not in texts.lower()


def test_without_a_tracer_a_reply_names_no_trace_and_an_engine_that_has_one_begins_none(
    replica: EngineReplica, backbone: Backbone, spans: Spans
) -> None:
    async def run() -> None:
        app = make_app(RayEngine(Handle(replica), 30.0), backbone.info)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ship") as client:
            reply = await predict(client, "nuts", traceparent=PARENT)
            assert reply.status_code == 200
            assert "traceresponse" not in reply.headers

    asyncio.run(run())
    assert spans.all == ()
