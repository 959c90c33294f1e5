"""The HTTP interface on an engine without Ray: statuses, headers, and problem documents for every error."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
from fastapi.routing import APIRoute

from orchestrator.serve.engine_api import EngineBusyError, EngineUnavailableError, Refusal
from ship.backbone import Backbone
from ship.images import decode_image
from tests.unit.orchestrator.serve.caller import LIMITS, PNG, TO_BOLTS, Caller, assert_problem
from tests.unit.orchestrator.serve.factory import draw_png


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


def test_an_answer_names_label_probabilities_and_what_answered(call: Caller, backbone: Backbone):
    reply = call.predict()
    assert reply.status_code == 200
    assert reply.json() == {
        "task": "bolts",
        "version": 2,
        "digest": "d" * 64,
        "rule": None,
        "label": "bad",
        "decision": "bad",
        "probabilities": {"bad": 0.75, "good": 0.25},
    }
    named = {
        name: reply.headers[f"ship-{name}"] for name in ("task", "version", "digest", "backbone", "precision")
    }
    assert named == {
        "task": "bolts",
        "version": "2",
        "digest": "d" * 64,
        "backbone": backbone.fingerprint,
        "precision": "float32",
    }


def test_an_unsure_answer_says_why_and_which_rule_decided(call: Caller) -> None:
    engine = call.engine
    engine.decision, engine.because, engine.rules = "unsure", "far", repeat("abc" * 21 + "d")
    found = call.predict().json()
    assert (found["decision"], found["decision_because"]) == ("unsure", "far")
    assert (found["label"], found["rule"]) == ("bad", "abcabcabcabc")
    page = call("GET", "/metrics").text
    assert 'ship_decisions_total{decision="unsure_far",task="other"} 1.0' in page
    assert 'decision="label"' not in page


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
        ("no_champion", 404, "task-waiting"),
        ("retired", 410, "task-retired"),
        ("other_version", 404, "version-not-served"),
        ("not_loaded", 503, "task-not-loaded"),
        ("not_ready", 503, "not-ready"),
        ("failed", 500, "failed"),
        ("busy", 429, "busy"),
        ("late", 504, "late"),
    ],
)
def test_refusals_of_the_engine(call: Caller, reason: str, status: int, kind: str):
    call.engine.refusal = Refusal(reason=reason, detail="because")
    reply = call.predict()
    assert "because" in assert_problem(reply, status, kind)
    assert ("retry-after" in reply.headers) == (status in (429, 503))


def test_a_task_that_the_engine_has_no_room_for_is_refused_before_its_images_are_read(call: Caller):
    call.engine.refusal = Refusal(reason="busy", detail="full", wait_s=60.0)
    assert call.predict().headers["retry-after"] == "60"
    call.engine.refusal = None
    for reply in (call.predict(b"no image"), call("POST", "/v2/models/bolts/infer", json={})):
        assert reply.status_code == 429, reply.text
        assert 50 < int(reply.headers["retry-after"]) <= 60
    assert len(call.engine.asked) == 1
    assert call.predict(**{"Ship-Task": "nuts"}).status_code == 404, "another task is asked"
    assert call("GET", "/v1/tasks/bolts").status_code == 200


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
    assert reply.headers["allow"] == "POST, OPTIONS"


def test_a_bug_of_ours_tells_nothing_but_that(call: Caller):
    call.engine.error = ZeroDivisionError("a secret")
    assert "secret" not in assert_problem(call.predict(), 500)


def test_tasks_are_listed_with_what_is_wrong(call: Caller, backbone: Backbone):
    listed = call("GET", "/v1/tasks").json()
    assert listed["backbone"]["fingerprint"] == backbone.fingerprint
    assert listed["backbone"]["name"] == "small", "no path of the server's"
    assert listed["tasks"] == [
        {
            "task": "bolts",
            "version": 2,
            "digest": "d" * 64,
            "wanted_version": 3,
            "wanted_digest": "e" * 64,
            "rule": None,
            "wanted_rule": "f" * 64,
            "problem": "prompt.json: it was changed",
            "canary": {"version": 4, "share": 0.05},
            "shadow_version": 5,
            "others": [4, 5],
            "backbone": backbone.fingerprint,
        }
    ]
    assert listed["backbones"] == [listed["backbone"]]
    assert call("GET", "/v1/tasks/bolts").json()["labels"] == ["good", "bad"]
    assert_problem(call("GET", "/v1/tasks/nuts"), 404, "task-unknown")
    for reason, status, kind in (("no_champion", 404, "task-waiting"), ("retired", 410, "task-retired")):
        call.engine.idle["gears"] = Refusal(reason=reason, detail="because")
        assert_problem(call("GET", "/v1/tasks/gears"), status, kind)
        assert call("GET", "/v2/models/gears").status_code == status
    assert_problem(call("GET", "/v1/tasks/%2e%2e%5c"), 400, "task-invalid")


def test_health_is_not_readiness(call: Caller):
    ready = call("GET", "/readyz").json()
    assert (ready["num_served"], ready["last_look_s"]) == (1, {"catalog": 0.5})
    assert (ready["num_broken"], ready["detail"]) == ({"catalog": 0}, "1 tasks are served")
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
        'ship_stage_seconds_count{stage="queue"} 1.0',
        'ship_stage_seconds_count{stage="forward"} 1.0',
        'ship_answers_total{task="other"} 1.0',
        'ship_swaps_total{backbone="",engine="a"} 3.0',
        'ship_prompt_load_failures_total{backbone="",engine="a"} 1.0',
        'ship_resident_bytes{backbone="",engine="a"} 1000.0',
        'ship_engine_precision{engine="a",precision="float32"} 1.0',
    ):
        assert line in page.text.splitlines()
    assert 'ship_catalog_age_seconds{backbone="",engine="a"} 0.5' in page.text


def test_an_engine_that_hangs_does_not_hold_up_the_counters(backbone: Backbone):
    call = Caller(backbone, replace(LIMITS, stats_timeout_s=0.01))
    call.engine.stats = lambda: asyncio.sleep(3600)
    page = call("GET", "/metrics")
    assert page.status_code == 200
    assert "ship_swaps_total{" not in page.text


def test_a_client_that_hangs_up_is_no_failure_of_ours(call: Caller):
    call.engine.takes_s = 3600.0

    async def hang_up() -> None:
        sent = []
        body = [{"type": "http.request", "body": PNG, "more_body": False}]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/predict",
            "query_string": b"",
            "headers": [(b"ship-task", b"bolts"), (b"content-type", b"image/png")],
        }

        async def receive() -> dict[str, object]:
            return body.pop() if body else await asyncio.sleep(3600)

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        request = asyncio.create_task(call.app(scope, receive, send))
        while not call.engine.waits:
            await asyncio.sleep(0.001)
        # As Ray's proxy does, and uvicorn when it ends.
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert sent == []

    asyncio.run(hang_up())
    lines = call("GET", "/metrics").text.splitlines()
    assert 'ship_requests_total{route="/v1/predict",status="499"} 1.0' in lines


def test_counters_are_told_without_an_engine_too(call: Caller):
    call.engine.error = EngineUnavailableError("dead")
    page = call("GET", "/metrics")
    assert page.status_code == 200
    assert "ship_requests_total" in page.text
    assert "ship_swaps_total{" not in page.text


def test_key_and_time_reach_the_engine(call: Caller):
    call.predict(**{"Ship-Key": "line 7, cap 12", "Ship-Timeout": "2.5"})
    call.predict(**{"Ship-Timeout": "86400"})
    call.predict()
    assert [ask.key for ask in call.engine.asks] == ["line 7, cap 12", None, None]
    short_s, long_s, default_s = call.engine.patience_s
    assert 0.0 < short_s < 2.5, "what reading and decoding took is over"
    assert 2.5 < long_s < 30.0, "no longer than the door allows"
    assert 2.5 < default_s < 30.0


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "1e3", "inf", "nan", "", "1 s", "1.", "²", "9" * 400])
def test_a_time_is_seconds_above_zero(call: Caller, text: str):
    detail = assert_problem(call.predict(**{"Ship-Timeout": text.encode()}), 400, "timeout-invalid")
    assert "Ship-Timeout" in detail
    assert not call.engine.asked


@pytest.mark.parametrize("key", ["", "k" * 129, "a\tb", "ä", "a\x7f"])
def test_a_key_is_printable_and_short(call: Caller, key: str):
    assert "Ship-Key" in assert_problem(call.predict(**{"Ship-Key": key.encode()}), 400, "key-invalid")
    assert not call.engine.asked


@pytest.mark.parametrize("name", ["Ship-Version", "Ship-Key", "Ship-Timeout"])
def test_a_header_that_contradicts_itself(call: Caller, name: str):
    headers = [*TO_BOLTS.items(), (name, "1"), (name, "2")]
    detail = assert_problem(
        call("POST", "/v1/predict", content=PNG, headers=headers), 400, "header-ambiguous"
    )
    assert name in detail


def test_time_that_is_up_is_told_with_where_it_went(call: Caller):
    call.engine.takes_s = 60.0
    detail = assert_problem(call.predict(**{"Ship-Timeout": "0.3"}), 504, "late")
    assert "within 0.3 s" in detail
    assert "decode " in detail
    call.engine.takes_s = 0.0
    assert call.predict().status_code == 200


def test_a_body_that_comes_in_too_slowly_is_late(call: Caller):
    async def drip() -> AsyncIterator[bytes]:
        yield PNG[:10]
        await asyncio.sleep(60)

    reply = call("POST", "/v1/predict", content=drip(), headers={**TO_BOLTS, "Ship-Timeout": "0.2"})
    assert "done by then: nothing" in assert_problem(reply, 504, "late")


def test_a_path_with_a_slash_too_many_is_not_redirected(call: Caller):
    assert_problem(call("GET", "/v1/tasks/bolts/", headers={"Host": "elsewhere.example"}), 404)


def test_the_framework_reads_nothing_of_a_request_but_its_path(call: Caller) -> None:
    """Other parameters would be missing from our document, and refused in other words than ours."""
    assert call.app.routes
    for route in call.app.routes:
        assert isinstance(route, APIRoute)
        read = route.dependant
        assert {param.field_info.annotation for param in read.path_params} <= {str}, route.path
        others = [read.query_params, read.header_params, read.cookie_params, read.body_params]
        assert others == [[], [], [], []], route.path
