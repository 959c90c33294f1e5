"""The HTTP interface on an engine without Ray: statuses, headers, and problem documents for every error."""

import asyncio

import httpx
import numpy as np
import pytest

from orchestrator.serve.app import make_app
from orchestrator.serve.engine_api import EngineBusyError, EngineUnavailableError, Refusal
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from ship.images import decode_image
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png

PNG = draw_png()
TO_BOLTS = {"Ship-Task": "bolts", "Content-Type": "image/png"}


class Caller:
    """A client of one application."""

    def __init__(self, backbone: Backbone) -> None:
        self.engine = FakeEngine()
        limits = Limits(max_body_bytes=100_000, max_pixels=40 * 30)
        self.app = make_app(self.engine, backbone.info, limits)

    def __call__(self, method: str, path: str, **request: object) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
                return await client.request(method, path, **request)

        return asyncio.run(send())

    def predict(self, content: bytes = PNG, **headers: str) -> httpx.Response:
        return self("POST", "/v1/predict", content=content, headers={**TO_BOLTS, **headers})


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


def assert_problem(reply: httpx.Response, status: int, kind: str | None = None) -> str:
    """Check that the reply is a problem document; returns its detail."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["type"] == ("about:blank" if kind is None else f"urn:ship:problem:{kind}")
    assert problem["title"]
    detail: str = problem["detail"]
    return detail


def test_an_answer_names_label_probabilities_and_what_answered(call: Caller, backbone: Backbone):
    reply = call.predict()
    assert reply.status_code == 200
    assert reply.json() == {
        "task": "bolts",
        "version": 2,
        "digest": "d" * 64,
        "label": "bad",
        "probabilities": {"bad": 0.75, "good": 0.25},
    }
    named = {
        name: reply.headers[name] for name in ("ship-task", "ship-version", "ship-digest", "ship-backbone")
    }
    assert named == {
        "ship-task": "bolts",
        "ship-version": "2",
        "ship-digest": "d" * 64,
        "ship-backbone": backbone.fingerprint,
    }


def test_the_engine_gets_the_image_as_tuning_would_see_it(call: Caller, backbone: Backbone):
    call.predict(**{"Ship-Version": "2"})
    call("POST", "/v1/predict", files={"image": PNG}, headers={"Ship-Task": "bolts"})
    expected = decode_image(PNG, size=backbone.image_size, interpolation=backbone.interpolation).numpy()
    assert [(task, version) for _, task, version in call.engine.asked] == [("bolts", 2), ("bolts", None)]
    for image_3HW, _, _ in call.engine.asked:
        assert image_3HW.dtype == np.uint8
        np.testing.assert_array_equal(image_3HW, expected)


def test_bad_requests_never_reach_the_engine(call: Caller):
    assert_problem(call("POST", "/v1/predict", content=PNG), 400, "task-missing")
    assert_problem(call.predict(**{"Ship-Task": "../bolts"}), 400, "task-invalid")
    assert_problem(call.predict(**{"Ship-Version": "new"}), 400, "version-invalid")
    assert_problem(call.predict(b""), 400, "body-empty")
    assert_problem(call.predict(bytes(100_001)), 413, "body-too-large")
    assert_problem(call.predict(**{"Content-Type": "text/plain"}), 415, "content-type-unsupported")
    assert_problem(call.predict(b"<svg/>"), 415, "image-unsupported")
    assert_problem(call.predict(PNG[:200]), 422, "image-corrupt")
    assert_problem(call.predict(draw_png(size=(41, 30))), 413, "image-too-large")
    assert not call.engine.asked


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("unknown_task", 404, "task-unknown"),
        ("other_version", 404, "version-not-served"),
        ("not_loaded", 503, "task-not-loaded"),
        ("not_ready", 503, "not-ready"),
        ("failed", 500, "failed"),
    ],
)
def test_refusals_of_the_engine(call: Caller, reason: str, status: int, kind: str):
    call.engine.refusal = Refusal(reason=reason, detail="because")
    reply = call.predict()
    assert "because" in assert_problem(reply, status, kind)
    assert ("retry-after" in reply.headers) == (status == 503)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/tasks", "/v1/tasks/bolts", "/readyz"])
def test_an_engine_that_cannot_be_asked(call: Caller, path: str):
    request = {"content": PNG, "headers": TO_BOLTS} if path == "/v1/predict" else {}
    method = "POST" if request else "GET"
    for error, status, kind in (
        (EngineBusyError("full"), 429, "busy"),
        (EngineUnavailableError("dead"), 503, "unavailable"),
    ):
        call.engine.error = error
        reply = call(method, path, **request)
        assert_problem(reply, status, kind)
        assert int(reply.headers["retry-after"]) >= 1


def test_errors_of_the_framework_are_problem_documents(call: Caller):
    assert_problem(call("GET", "/nowhere"), 404)
    reply = call("GET", "/v1/predict")
    assert_problem(reply, 405)
    assert reply.headers["allow"] == "POST"


def test_a_bug_of_ours_tells_nothing_but_that(call: Caller):
    call.engine.error = ZeroDivisionError("a secret")
    assert "secret" not in assert_problem(call.predict(), 500)


def test_tasks_are_listed_with_what_is_wrong(call: Caller, backbone: Backbone):
    listed = call("GET", "/v1/tasks").json()
    assert listed["backbone"]["fingerprint"] == backbone.fingerprint
    assert listed["tasks"] == [
        {
            "task": "bolts",
            "version": 2,
            "digest": "d" * 64,
            "wanted_version": 3,
            "wanted_digest": "e" * 64,
            "problem": "prompt.json: it was changed",
            "canary": None,
            "shadow_version": None,
        }
    ]
    assert call("GET", "/v1/tasks/bolts").json()["labels"] == ["good", "bad"]
    assert_problem(call("GET", "/v1/tasks/nuts"), 404, "task-unknown")
    assert_problem(call("GET", "/v1/tasks/%2e%2e%5c"), 400, "task-invalid")


def test_health_is_not_readiness(call: Caller):
    assert call("GET", "/readyz").json()["num_served"] == 1
    call.engine.refusal = Refusal(reason="not_ready", detail="no catalog yet")
    assert_problem(call("GET", "/readyz"), 503, "not-ready")
    assert call("GET", "/healthz").status_code == 200


def test_requests_and_batches_are_counted(call: Caller):
    call.predict()
    call.predict(b"no image")
    call("GET", "/made/up/1")
    call("GET", "/made/up/2")
    page = call("GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    for line in (
        'ship_requests_total{route="/v1/predict",status="200"} 1.0',
        'ship_requests_total{route="/v1/predict",status="415"} 1.0',
        'ship_requests_total{route="other",status="404"} 2.0',
        "ship_batch_rows_sum 3.0",
        "ship_batch_tasks_sum 2.0",
        'ship_stage_seconds_count{stage="decode"} 1.0',
    ):
        assert line in page.text.splitlines()
