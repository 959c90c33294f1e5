"""Lines of the request log: what they say, what they never say, and the id that goes with a reply."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.middleware.access_log import LOGGER, open_request_log
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import PNG, TO_BOLTS, Caller


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == LOGGER]


def test_a_prediction_is_one_line(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    reply = call.predict(**{"X-Request-ID": "shift-2/0017"})
    [line] = lines(caplog)
    time, seconds, stages_s = line.pop("time"), line.pop("seconds"), line.pop("stages_s")
    assert line == {
        "request_id": "shift-2/0017",
        "method": "POST",
        "route": "/v1/predict",
        "status": 200,
        "token": None,
        "task": "bolts",
        "version": 2,
        "digest": "d" * 12,
        "items": None,
        "bytes_in": len(PNG),
    }
    assert time.endswith("+00:00")
    assert list(stages_s) == ["read", "decode", "engine"]
    assert 0 <= sum(stages_s.values()) <= seconds
    assert reply.headers["x-request-id"] == "shift-2/0017"


def test_nothing_secret_or_foreign_gets_in(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    secret = "s3cr3t"
    call("GET", f"/{secret}/x", headers={"Authorization": f"Bearer {secret}"})
    call("GET", f"/v1/tasks?token={secret}", headers={"Authorization": f"Bearer {secret}"})
    call("GET", f"/v1/tasks/{secret.upper()}")
    call("POST", "/v1/predict", content=secret.encode(), headers={**TO_BOLTS, "Ship-Task": f"../{secret}"})
    call(secret.upper(), "/v1/tasks")
    assert secret not in caplog.text.lower()
    found = lines(caplog)
    assert [(line["route"], line["status"], line["task"]) for line in found] == [
        ("other", 404, None),
        ("/v1/tasks", 200, None),
        ("/v1/tasks/{task}", 400, None),
        ("/v1/predict", 400, None),
        ("/v1/tasks", 405, None),
    ]
    assert found[-1]["method"] == "other"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "a\x7f", '"}', "ä"])
def test_an_id_that_is_none_is_made(call: Caller, sent: str) -> None:
    first, second = (
        call("GET", "/healthz", headers={"X-Request-ID": sent.encode()}).headers["x-request-id"]
        for _ in range(2)
    )
    assert first != second
    assert len(first) == len(second) == 32


def test_whatever_answers_has_an_id(call: Caller) -> None:
    call.engine.error = ZeroDivisionError()
    for reply in (call.predict(), call("GET", "/nowhere"), call("GET", "/v2/models/bolts/infer")):
        assert len(reply.headers["x-request-id"]) == 32


def test_behind_a_proxy_that_names_responses_nothing_is_named_twice(
    backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    call = Caller(backbone)
    call.app = make_app(call.engine, backbone.info, names_responses=False)
    assert "x-request-id" not in call("GET", "/healthz", headers={"X-Request-ID": "7"}).headers
    assert [line["request_id"] for line in lines(caplog)] == ["7"]


def test_a_batch_and_a_tensor_tell_how_many(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    call.batch({"a": PNG, "b": PNG}, None, **{"Ship-Task": "bolts"})
    [line] = lines(caplog)
    assert (line["route"], line["items"], line["task"]) == ("/v1/predict:batch", 2, None)


def test_lines_go_to_a_file(call: Caller, tmp_path: Path) -> None:
    logger, file = logging.getLogger(LOGGER), tmp_path / "logs" / "requests.jsonl"
    before = logger.level, logger.propagate
    try:
        open_request_log(str(file))
        open_request_log(str(file))
        call.predict()
        call("GET", "/healthz")
        found = [json.loads(line)["route"] for line in file.read_text().splitlines()]
        assert found == ["/v1/predict", "/healthz"]
    finally:
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def test_off_unless_asked_for(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    call.predict()
    assert not lines(caplog)
