"""The Open Inference Protocol: metadata, health, both kinds of tensors, and errors as it words them."""

import base64
from dataclasses import replace
from itertools import repeat
from typing import Any

import httpx
import numpy as np
import pytest

from orchestrator.serve.canary import key_of_content
from orchestrator.serve.engine_api import EngineBusyError, Refusal
from ship.backbone import Backbone
from ship.images import decode_image
from tests.unit.orchestrator.serve.caller import PNG, Caller
from tests.unit.orchestrator.serve.factory import draw_png

INFER = "/v2/models/bolts/infer"
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


def tensor(data: Any, shape: list[int], datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": shape, "datatype": datatype, "data": data}], **more}


def encoded(*files: bytes) -> dict[str, Any]:
    return tensor([base64.b64encode(file).decode() for file in files], [len(files)], "BYTES")


def assert_error(reply: httpx.Response, status: int) -> str:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json()) == {"error"}
    error: str = reply.json()["error"]
    return error


def outputs(reply: httpx.Response) -> dict[str, dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    return {output["name"]: output for output in reply.json()["outputs"]}


def test_server_and_health(call: Caller) -> None:
    assert call("GET", "/v2").json()["name"] == "ship"
    assert call("GET", "/v2/health/live").json() == {"live": True}
    assert call("GET", "/v2/health/ready").json() == {"ready": True}
    call.engine.refusal = Refusal(reason="not_ready", detail="no catalog yet")
    reply = call("GET", "/v2/health/ready")
    assert_error(reply, 503)
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/v2/models/bolts", "/v2/models/bolts/versions/2"])
def test_a_task_is_a_model(call: Caller, path: str) -> None:
    found = call("GET", path).json()
    assert (found["name"], found["versions"]) == ("bolts", ["2", "4", "5"])
    [image] = found["inputs"]
    assert (image["name"], image["datatype"], image["shape"]) == ("image", "UINT8", [-1, 3, 32, 32])
    assert "BYTES" in image["parameters"]["alternative"]
    assert [(output["name"], output["shape"]) for output in found["outputs"]] == [
        ("probabilities", [-1, 2]),
        ("label", [-1]),
        ("labels", [2]),
        ("decision", [-1]),
        ("decision_because", [-1]),
    ]
    assert call("GET", f"{path}/ready").json() == {"name": "bolts", "ready": True}


def test_versions_that_answer(call: Caller) -> None:
    """An evicted version is loaded when asked for; one that could not be loaded is not."""
    state = call.engine.state
    for served, problem, others, versions in (
        (2, None, (1, 5), ["2", "1", "5"]),
        (None, None, (), ["3"]),
        (None, "it was changed", (), []),
        (None, "it was changed", (1,), ["1"]),
    ):
        call.engine.state = replace(state, version=served, problem=problem, others=others)
        assert call("GET", "/v2/models/bolts").json()["versions"] == versions
        for version in versions:
            path = f"/v2/models/bolts/versions/{version}/ready"
            assert call("GET", path).json() == {"name": "bolts", "ready": True}
        ready = call("GET", "/v2/models/bolts/ready")
        if problem is None:
            assert ready.json() == {"name": "bolts", "ready": True}
        else:
            assert "it was changed" in assert_error(ready, 503)


@pytest.mark.parametrize("path", ["/v2/models/{}", "/v2/models/{}/ready"])
def test_models_that_are_none(call: Caller, path: str) -> None:
    assert "not in the catalog" in assert_error(call("GET", path.format("nuts")), 404)
    assert "Invalid task name" in assert_error(call("GET", path.format("Bolts")), 400)
    assert "these are: 2, 4, 5" in assert_error(call("GET", path.format("bolts/versions/3")), 404)
    assert "whole number" in assert_error(call("GET", path.format("bolts/versions/latest")), 400)
    assert_error(call("GET", path.format("bolts") + "/more"), 404)


def test_pixels_arrive_as_they_are(call: Caller) -> None:
    flat, nested, one = (
        tensor(PIXELS.flatten().tolist(), [2, 3, 32, 32]),
        tensor(PIXELS.tolist(), [2, 3, 32, 32]),
        tensor(PIXELS[1].tolist(), [3, 32, 32]),
    )
    for body, images in ((flat, PIXELS), (nested, PIXELS), (one, PIXELS[1:])):
        call.engine.asked.clear()
        assert outputs(call("POST", INFER, json=body))["probabilities"]["shape"] == [len(images), 2]
        np.testing.assert_array_equal([image for image, _, _ in call.engine.asked], images)


def test_files_arrive_as_tuning_would_see_them(call: Caller, backbone: Backbone) -> None:
    found = outputs(call("POST", INFER, json=encoded(PNG)))
    assert found["label"] == {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["bad"]}
    expected = decode_image(PNG, size=backbone.image_size, interpolation=backbone.interpolation).numpy()
    np.testing.assert_array_equal(call.engine.asked[0][0], expected)


def test_the_answer_names_what_answered_and_repeats_the_id(call: Caller) -> None:
    body = {**encoded(PNG, PNG), "id": "request 7"}
    reply = call("POST", "/v2/models/bolts/versions/2/infer", json=body, headers={"Ship-Key": "k"})
    assert {key: value for key, value in reply.json().items() if key != "outputs"} == {
        "id": "request 7",
        "model_name": "bolts",
        "model_version": "2",
        "parameters": {"digest": "d" * 64},
    }
    assert outputs(reply)["probabilities"] == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [2, 2],
        "data": [0.75, 0.25, 0.75, 0.25],
    }
    assert outputs(reply)["labels"]["data"] == ["bad", "good"]
    assert [(ask.version, ask.key) for ask in call.engine.asks] == [(2, "k"), (2, "k")]


def test_images_of_one_request_have_one_key_which_is_that_of_the_first(call: Caller) -> None:
    for body in (encoded(PNG, draw_png(1)), encoded(PNG), encoded(draw_png(1), PNG)):
        outputs(call("POST", INFER, json=body))
    first, second, alone, *others = (ask.key for ask in call.engine.asks)
    assert first == second == alone == key_of_content(PNG)
    assert others[0] == others[1] != first


def test_a_version_is_named_by_the_path_alone(call: Caller) -> None:
    of_version = "/v2/models/bolts/versions/2/infer"
    for path, version in ((INFER, "2"), (of_version, "3"), (of_version, "")):
        reply = call("POST", path, json=encoded(PNG), headers={"Ship-Version": version})
        assert "Version belongs in the path" in assert_error(reply, 400)
    assert not call.engine.asked
    outputs(call("POST", of_version, json=encoded(PNG), headers={"Ship-Version": "2"}))
    assert [ask.version for ask in call.engine.asks] == [2]


def test_a_query_names_no_version(call: Caller) -> None:
    outputs(call("POST", f"{INFER}?version=7", json=encoded(PNG)))
    assert [ask.version for ask in call.engine.asks] == [None]
    for path in ("/v2/models/bolts", "/v2/models/bolts/ready"):
        assert call("GET", f"{path}?version=7").status_code == 200


def test_outputs_are_chosen(call: Caller) -> None:
    reply = call("POST", INFER, json={**encoded(PNG), "outputs": [{"name": "label"}]})
    assert list(outputs(reply)) == ["label"]


def test_decisions_are_outputs_and_the_rule_is_a_parameter(call: Caller) -> None:
    engine = call.engine
    engine.decision, engine.because, engine.rules = "unsure", "several", repeat("abc" * 21 + "d")
    reply = call("POST", INFER, json=encoded(PNG, PNG))
    assert reply.json()["parameters"] == {"digest": "d" * 64, "rule": "abcabcabcabc"}
    unsure = {"name": "decision", "datatype": "BYTES", "shape": [2], "data": ["unsure", "unsure"]}
    assert outputs(reply)["decision"] == unsure
    assert outputs(reply)["decision_because"]["data"] == ["several", "several"]
    engine.decision, engine.because, engine.rules = "bad", None, repeat(None)
    decided = outputs(call("POST", INFER, json=encoded(PNG)))
    assert (decided["decision"]["data"], decided["decision_because"]["data"]) == (["bad"], [""])


def test_a_rule_that_changes_meanwhile_decides_no_part_of_a_reply(call: Caller) -> None:
    call.engine.rules = iter(["a" * 64, "b" * 64])
    assert "send the request again" in assert_error(call("POST", INFER, json=encoded(PNG, PNG)), 503)


def test_a_version_that_changes_meanwhile(call: Caller) -> None:
    call.engine.digests = iter("ab")
    assert "send the request again" in assert_error(call("POST", INFER, json=encoded(PNG, PNG)), 503)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "missing 'inputs'"),
        ([], 400, "expected an object"),
        ({"inputs": []}, 400, "one tensor"),
        ({"inputs": [{"name": "image"}]}, 400, "missing 'shape', 'datatype', 'data'"),
        ({**encoded(PNG), "model": "x"}, 400, "unknown 'model'"),
        ({**encoded(PNG), "id": 7}, 400, "id: expected"),
        ({**encoded(PNG), "id": "a\nb"}, 400, "id: expected"),
        ({**encoded(PNG), "outputs": [{"name": "logits"}]}, 400, "out of probabilities"),
        ({**encoded(PNG), "outputs": [{"name": {}}]}, 400, "out of probabilities"),
        (tensor([1], [1], "FP32"), 400, "expected UINT8"),
        (tensor([1], [1, {}]), 400, "whole numbers above 0"),
        (tensor([1], [-1, 3, 32, 32]), 400, "whole numbers above 0"),
        (tensor([1], [2**40]), 400, "whole numbers above 0"),
        (tensor([1], [32, 32, 3]), 400, "expected [3, H, W]"),
        (tensor([1], [3, 32, 33]), 400, "expected 3168 whole numbers"),
        (tensor([1], [3, 32, 32]), 400, "expected 3072 whole numbers"),
        (tensor([256] * 3072, [3, 32, 32]), 400, "from 0 to 255"),
        (tensor([-1] * 3072, [3, 32, 32]), 400, "from 0 to 255"),
        (tensor([0.5] * 3072, [3, 32, 32]), 400, "whole numbers"),
        (tensor([True] * 3072, [3, 32, 32]), 400, "whole numbers"),
        (tensor(["1"] * 3072, [3, 32, 32]), 400, "arrays, objects and strings"),
        (tensor([*[0] * 3071, "1"], [3, 32, 32]), 400, "whole numbers"),
        (tensor([10**30] * 3072, [3, 32, 32]), 400, "whole numbers"),
        (tensor([[1, 2], [3]], [3, 32, 32]), 400, "nested as the shape says"),
        (tensor([*PIXELS[0].tolist()[:2], 0], [3, 32, 32]), 400, "nested as the shape says"),
        (tensor([[0] * 3072], [3, 32, 32]), 400, "nested as the shape says"),
        (tensor([0] * 3071 + [[0]], [3, 32, 32]), 400, "expected 3072 whole numbers"),
        (tensor([0] * 3071 + [True], [3, 32, 32]), 400, "whole numbers"),
        (tensor([0] * 3071 + [10**4000], [3, 32, 32]), 400, "from 0 to 255"),
        (tensor(np.zeros((32, 32, 3), int).tolist(), [3, 32, 32]), 400, "nested as the shape says"),
        (tensor({}, [3, 32, 32]), 400, "whole numbers"),
        (tensor([1], [5, 3, 32, 32]), 413, "at most 4"),
        (tensor(["x"] * 5, [5], "BYTES"), 413, "at most 4"),
        (tensor(["x"], [2], "BYTES"), 400, "array of 2 strings"),
        (tensor("x", [1], "BYTES"), 400, "array of 1 strings"),
        (tensor(["?"], [1], "BYTES"), 400, "data[0]: not base64"),
        (tensor(["ä"], [1], "BYTES"), 400, "data[0]: not base64"),
        (tensor([7], [1], "BYTES"), 400, "data[0]: expected a string"),
        (tensor(["aaaa"], [1, 1], "BYTES"), 400, "expected [N]"),
        (encoded(b"GIF89a"), 415, "expected JPEG"),
        (encoded(PNG[:200]), 422, "broken PNG"),
    ],
)
def test_requests_that_are_none(call: Caller, body: Any, status: int, said: str) -> None:
    assert said in assert_error(call("POST", INFER, json=body), status)
    assert not call.engine.asked


def test_refusals_keep_their_status(call: Caller) -> None:
    assert "not in the catalog" in assert_error(call("POST", "/v2/models/nuts/infer", json=encoded(PNG)), 404)
    call.engine.error = EngineBusyError("full")
    assert_error(call("POST", INFER, json=encoded(PNG)), 429)
    call.engine.error = ZeroDivisionError("a secret")
    assert "secret" not in assert_error(call("POST", INFER, json=encoded(PNG)), 500)
    call.engine.error, call.engine.takes_s = None, 60.0
    reply = call("POST", INFER, json=encoded(PNG), headers={"Ship-Timeout": "0.3"})
    assert "Timeout" in assert_error(reply, 504)


def test_what_is_not_offered_is_said(call: Caller) -> None:
    reply = call("POST", INFER, content=b"x", headers={"Inference-Header-Content-Length": "1"})
    assert "JSON" in assert_error(reply, 400)
    assert_error(call("POST", INFER, content=b"x", headers={"Content-Type": "image/png"}), 415)
    assert_error(call("GET", INFER), 405)
    assert_error(call("POST", INFER, content=bytes(100_001)), 413)
