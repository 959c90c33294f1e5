"""Batches: each image decoded once, each item answered or refused alone, and whole requests refused whole."""

import json
from typing import Any

import pytest
from torch import Tensor

from orchestrator.serve.engine_api import EngineBusyError, Refusal
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from ship.images import decode_image
from tests.unit.orchestrator.serve.caller import PNG, Caller, assert_problem, decode_with
from tests.unit.orchestrator.serve.factory import draw_png

OTHER = draw_png(1)


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


def test_items_are_answered_in_order_and_images_decoded_once(call: Caller, backbone: Backbone) -> None:
    decoded: list[bytes] = []

    def counted(content: bytes, **how: Any) -> Tensor:
        decoded.append(content)
        return decode_image(content, **how)

    decode_with(call.app, Decoder(backbone.info, Limits(), counted))
    items = [
        {"image": "b", "task": "bolts", "version": 2},
        {"image": "a", "task": "caps", "key": "line 7"},
        {"image": "b", "task": "caps"},
    ]
    reply = call.batch({"a": PNG, "b": OTHER}, items)
    assert reply.status_code == 200, reply.text
    found = reply.json()["items"]
    assert [(row["image"], row["task"]) for row in found] == [("b", "bolts"), ("a", "caps"), ("b", "caps")]
    assert found[0] == {
        "image": "b",
        "task": "bolts",
        "version": 2,
        "digest": "d" * 64,
        "rule": None,
        "label": "bad",
        "decision": "bad",
        "probabilities": {"bad": 0.75, "good": 0.25},
    }
    assert sorted(decoded) == sorted([PNG, OTHER])
    assert call.engine.num_images == [2], "one call for all of them"
    assert [(ask.task, ask.version, ask.key) for ask in call.engine.asks] == [
        ("bolts", 2, None),
        ("caps", None, "line 7"),
        ("caps", None, None),
    ]
    same, other, again = (image.tobytes() for image, _, _ in call.engine.asked)
    assert same == again != other


def test_what_fails_fails_alone(call: Caller) -> None:
    items = [
        {"image": "good", "task": "bolts"},
        {"image": "svg", "task": "bolts"},
        {"image": "good", "task": "nuts"},
        {"image": "good", "task": "../bolts"},
        {"image": "cut", "task": "bolts"},
        {"image": "good", "task": "bolts"},
        {"image": "large", "task": "bolts"},
    ]
    images = {"good": PNG, "svg": b"<svg/>", "cut": PNG[:200], "large": PNG + bytes(100_000)}
    reply = call.batch(images, items)
    assert reply.status_code == 200
    found = reply.json()["items"]
    assert [row.get("error", {}).get("type", "").rpartition(":")[2] for row in found] == [
        "",
        "image-unsupported",
        "task-unknown",
        "task-invalid",
        "image-corrupt",
        "",
        "image-file-too-large",
    ]
    assert [row.get("error", {}).get("status") for row in found] == [None, 415, 404, 400, 422, None, 413]
    for row in found:
        assert set(row) == (
            {"image", "task", "error"}
            if "error" in row
            else {"image", "task", "version", "digest", "rule", "label", "decision", "probabilities"}
        )
    assert len(call.engine.asks) == 3, "what was refused at the door is not asked"


def test_an_engine_that_is_busy_for_some_items_is_told_of_each(call: Caller) -> None:
    call.engine.refusal = Refusal(reason="busy", detail="100 rows wait")
    [row] = call.batch({"a": PNG}, [{"image": "a", "task": "bolts"}]).json()["items"]
    assert (row["error"]["status"], row["error"]["detail"]) == (429, "100 rows wait")
    call.engine.refusal, call.engine.error = None, EngineBusyError("full")
    assert_problem(call.batch({"a": PNG}, [{"image": "a", "task": "bolts"}]), 429, "busy")


def test_images_alone_beside_a_header(call: Caller) -> None:
    headers = {"Ship-Task": "bolts", "Ship-Version": "2", "Ship-Key": "k"}
    reply = call.batch({"a": PNG, "b": OTHER}, None, **headers)
    assert [row["image"] for row in reply.json()["items"]] == ["a", "b"]
    assert {(ask.task, ask.version, ask.key) for ask in call.engine.asks} == {("bolts", 2, "k")}


def test_nothing_to_ask_does_not_ask(call: Caller) -> None:
    call.engine.error = EngineBusyError("full")
    [row] = call.batch({"a": b"GIF89a"}, [{"image": "a", "task": "bolts"}]).json()["items"]
    assert row["error"]["status"] == 415


def test_a_batch_that_is_late_is_late_as_a_whole(call: Caller) -> None:
    call.engine.takes_s = 60.0
    reply = call.batch({"a": PNG}, [{"image": "a", "task": "bolts"}], **{"Ship-Timeout": "0.3"})
    assert_problem(reply, 504, "late")


ITEM = {"image": "a", "task": "bolts"}


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "at least one item"),
        ([{**ITEM, "threshold": 1, "top": 3}], "unknown 'threshold', 'top'"),
        ([{"image": "a"}], "missing 'task'"),
        ([{**ITEM, "task": 3}], "items[0].task: expected a string"),
        ([{**ITEM, "image": None}], "items[0].image: expected a string"),
        ([ITEM, {**ITEM, "version": "2"}], "items[1].version: expected a whole number"),
        ([{**ITEM, "version": True}], "version: expected a whole number"),
        ([{**ITEM, "version": -1}], "version: expected a whole number"),
        ([{**ITEM, "version": 10**30}], "version: expected a whole number"),
        ([{**ITEM, "version": 1.0}], "version: expected a whole number"),
        (["a"], "items[0]: expected an object, found a string"),
        ({"a": 1}, "items: expected an array"),
    ],
)
def test_items_that_are_none(call: Caller, items: list, said: str) -> None:
    assert said in assert_problem(call.batch({"a": PNG}, items), 400, "json-invalid")
    assert not call.engine.asked


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"items": [{"image": "a", "task": "x", "task": "y"}]}', "duplicate key in an object: 'task'"),
        ('{"items": [NaN]}', "NaN is not JSON"),
        ('{"items": [-Infinity]}', "-Infinity is not JSON"),
        ('{"items": ' + "[" * 50 + "]" * 50 + "}", "deeper than 3"),
        ('{"items": [' + "1," * 2000 + "1]}", "values"),
        ('{"items": [' + "9" * 5000 + "]}", "a number is too long"),
        ('{"items": [}', "line 1, column"),
        ('{"items": [{"image": "' + "x" * 20_000 + '"}]}', "more than 8 items need"),
        ("", "line 1, column 1"),
        ("[]", "request: expected an object, found an array"),
        (b'{"items": "\xff"}', "is not UTF-8"),
        ('{"items": [], "more": 1}', "unknown 'more'"),
    ],
)
def test_documents_that_are_none(call: Caller, document: str | bytes, said: str) -> None:
    parts = [("request", (None, document, "application/json")), ("a", ("a.png", PNG))]
    reply = call("POST", "/v1/predict:batch", files=parts)
    assert said in assert_problem(reply, 400, "json-invalid")


@pytest.mark.parametrize(
    ("parts", "headers", "said"),
    [
        ([("request", (None, json.dumps({"items": [{"image": "b", "task": "x"}]})))], {}, "named 'b'"),
        (
            [("request", (None, json.dumps({"items": [ITEM]}))), ("a", PNG), ("b", PNG)],
            {},
            "no item asks about part 'b'",
        ),
        ([("a", PNG), ("a", PNG)], {"Ship-Task": "bolts"}, "more than one part 'a'"),
        ([("request", (None, "{}")), ("request", (None, "{}"))], {}, "found 2 parts 'request'"),
        *(
            (
                [("request", (None, json.dumps({"items": [ITEM]}))), ("a", PNG)],
                {name: value},
                f"and header {name}",
            )
            for name, value in (("Ship-Task", "bolts"), ("Ship-Version", "2"), ("Ship-Key", "k"))
        ),
    ],
)
def test_forms_that_do_not_fit(call: Caller, parts: list, headers: dict[str, str], said: str) -> None:
    reply = call("POST", "/v1/predict:batch", files=parts, headers=headers)
    assert said in assert_problem(reply, 400, "form-invalid")


def test_images_alone_need_a_task(call: Caller) -> None:
    assert_problem(call.batch({"a": PNG}, None), 400, "task-missing")


@pytest.mark.parametrize("num", [5, 6, 7, 8, 300])
def test_too_many_images_at_a_time(call: Caller, num: int) -> None:
    images = {f"i{number}": b"x" for number in range(num)}
    for items, headers in ((None, {"Ship-Task": "bolts"}), ([ITEM], {})):
        reply = call.batch(images, items, **headers)
        assert "at most 4 images" in assert_problem(reply, 413, "batch-too-large")


def test_as_many_images_as_may_be(call: Caller) -> None:
    images = {f"i{number}": PNG for number in range(4)}
    items = [{"image": name, "task": "bolts"} for name in images]
    assert len(call.batch(images, None, **{"Ship-Task": "bolts"}).json()["items"]) == 4
    assert len(call.batch(images, items).json()["items"]) == 4


def test_too_much_at_a_time(call: Caller) -> None:
    detail = assert_problem(call.batch({"a": PNG}, [ITEM] * 9), 413, "batch-too-large")
    assert "9 items: expected at most 8" in detail
    assert_problem(call.batch({"a": bytes(300_001)}, [ITEM]), 413, "body-too-large")
    assert_problem(call("POST", "/v1/predict:batch", content=PNG), 415, "content-type-unsupported")


def test_a_form_that_ends_early_is_no_smaller_form(call: Caller) -> None:
    boundary = "multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n\r\n%s\r\n'
    body = part % (b"a", PNG) + part % (b"c", PNG)
    headers = {"Content-Type": boundary, "Ship-Task": "bolts"}
    reply = call("POST", "/v1/predict:batch", content=body, headers=headers)
    assert "ends before the last boundary" in assert_problem(reply, 400, "form-invalid")
    whole = call("POST", "/v1/predict:batch", content=body + b"--b--\r\n", headers=headers)
    assert len(whole.json()["items"]) == 2
