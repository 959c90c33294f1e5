"""The OpenAPI document: valid, complete, and every example as the application really answers."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import repeat
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from orchestrator.serve.engine_api import EngineBusyError, EngineUnavailableError, Refusal
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.middleware.drain import Drain
from orchestrator.serve.ingress.paths import PATHS
from orchestrator.serve.ingress.problem_kinds import KINDS
from orchestrator.store.documents.tokens import Scope as TokenScope
from ship.backbone import Backbone
from ship.settings.view import DEFAULT_VIEW, View
from tests.unit.orchestrator.serve.caller import PNG, TO_BOLTS, Caller
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png
from tests.unit.orchestrator.serve.ingress.hostile_files import jpeg_of_scans
from tests.unit.orchestrator.serve.ingress.known_tokens import Known
from tests.unit.orchestrator.serve.ingress.openapi.schema import DOCUMENT, check_schema
from tests.unit.ship.factory import make_backbone

OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
ITEMS = [{"image": "cap", "task": "bolts", "version": 2, "key": "line 7"}, {"image": "cap", "task": "nuts"}]
INFER = {
    "id": "request 7",
    "inputs": [
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(PNG).decode()]}
    ],
}

# No client sees the first, servers refuse the second themselves, the third is inside of a reply.
UNDOCUMENTED = {"hung-up", "length-invalid", "image-file-too-large"}


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


class Sent:
    """A request that would be answered, until it is spoiled."""

    def __init__(self, path: str, method: str) -> None:
        self.template = path
        self.method, self.path = method, path.format(task="bolts", version="2")
        self.headers: dict[str, Any] = {}
        self.content: bytes | AsyncIterator[bytes] | None = None
        self.known = Known()
        self.drain = Drain()
        if method == "post":
            self.headers, self.content = self._body(PNG)

    def with_image(self, content: bytes) -> None:
        self.headers, self.content = self._body(content)

    def with_json(self, value: Any) -> None:
        if "batch" in self.path:
            self.headers, self.content = _form(PNG, value)
        else:
            self.content = json.dumps(value).encode()

    def _body(self, image: bytes) -> tuple[dict[str, Any], bytes]:
        if self.path.startswith("/v2"):
            body = {**INFER, "inputs": [{**INFER["inputs"][0], "data": [base64.b64encode(image).decode()]}]}
            return {"Content-Type": "application/json"}, json.dumps(body).encode()
        if "batch" in self.path:
            return _form(image, {"items": ITEMS})
        return {**TO_BOLTS, "Accept": "application/json"}, image

    def send(self, call: Caller) -> httpx.Response:
        tokens = self.known if self.known.tokens is not None else None
        if tokens or self.drain.is_closing:
            call.app = make_app(call.engine, make_backbone().info, drain=self.drain, tokens=tokens)
        return call(self.method.upper(), self.path, content=self.content, headers=self.headers)


def _form(image: bytes, document: Any) -> tuple[dict[str, Any], bytes]:
    parts = [
        ("request", (None, json.dumps(document), "application/json")),
        ("cap", ("cap.png", image, "image/png")),
    ]
    request = httpx.Request("POST", "http://ship", files=parts)
    return {"Content-Type": request.headers["content-type"]}, request.read()


def _header(name: str, value: str) -> Callable[[Sent, FakeEngine], None]:
    return lambda sent, _: sent.headers.update({name: value})


def _task_missing(sent: Sent, _: FakeEngine) -> None:
    sent.headers.pop("Ship-Task", None)
    if "batch" in sent.path:
        request = httpx.Request("POST", "http://ship", files={"cap": ("cap.png", PNG)})
        sent.headers, sent.content = {"Content-Type": request.headers["content-type"]}, request.read()


def _task_invalid(sent: Sent, _: FakeEngine) -> None:
    if "Ship-Task" in sent.headers:
        sent.headers["Ship-Task"] = "../bolts"
    sent.path = sent.path.replace("/bolts", "/Bolts")


def _version_invalid(sent: Sent, _: FakeEngine) -> None:
    _task_missing_of_batch(sent)
    sent.headers["Ship-Version"] = "new"
    sent.path = sent.path.replace("/2", "/new")


def _key_invalid(sent: Sent, _: FakeEngine) -> None:
    _task_missing_of_batch(sent)
    sent.headers["Ship-Key"] = ""


def _ambiguous(sent: Sent, _: FakeEngine) -> None:
    sent.headers = [*sent.headers.items(), ("Ship-Timeout", "1"), ("Ship-Timeout", "2")]


def _task_missing_of_batch(sent: Sent) -> None:
    """Headers of a batch count where images come alone."""
    if "batch" in sent.path:
        _task_missing(sent, FakeEngine())
        sent.headers["Ship-Task"] = "bolts"


def _close(sent: Sent, _: FakeEngine) -> None:
    sent.drain.is_closing = True


def _other_view(view: View) -> Callable[[Sent, FakeEngine], None]:
    refusal = Refusal(reason="other_view", detail="version 2 sees pictures in another way", view=view)
    return lambda _, engine: setattr(engine, "refusal", refusal)


def _change_version(sent: Sent, engine: FakeEngine) -> None:
    if not sent.path.startswith("/v2"):
        _other_view(DEFAULT_VIEW)(sent, engine)
        return
    engine.digests = iter("de")
    files = [base64.b64encode(PNG).decode()] * 2
    sent.with_json({"inputs": [{**INFER["inputs"][0], "shape": [2], "data": files}]})


def _stalled(sent: Sent, _: FakeEngine) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    sent.content = body()


def _content(content: bytes) -> Callable[[Sent, FakeEngine], None]:
    return lambda sent, _: setattr(sent, "content", content)


def _image(content: bytes) -> Callable[[Sent, FakeEngine], None]:
    return lambda sent, _: sent.with_image(content)


def _refuse(reason: str, detail: str) -> Callable[[Sent, FakeEngine], None]:
    return lambda _, engine: setattr(engine, "refusal", Refusal(reason=reason, detail=detail))


def _raise(error: Exception) -> Callable[[Sent, FakeEngine], None]:
    return lambda _, engine: setattr(engine, "error", error)


def _unknown(sent: Sent, engine: FakeEngine) -> None:
    sent.path = sent.path.replace("/bolts", "/nuts")
    if "Ship-Task" in sent.headers:
        sent.headers["Ship-Task"] = "nuts"
        if sent.path == "/v1/explain":
            engine.refusal = Refusal(reason="unknown_task", detail="task 'nuts' is not in the catalog")


def _idle(reason: str) -> Callable[[Sent, FakeEngine], None]:
    def spoil(_: Sent, engine: FakeEngine) -> None:
        engine.refusal = Refusal(reason=reason, detail="no version of task 'bolts' serves")
        engine.idle["bolts"] = engine.refusal

    return spoil


def _no_page(sent: Sent, _: FakeEngine) -> None:
    sent.path += "?limit=0"


def _other_version(sent: Sent, engine: FakeEngine) -> None:
    sent.path = sent.path.replace("/versions/2", "/versions/7")
    detail = "version 7 of task 'bolts' is not served; version 2 is"
    engine.refusal = Refusal(reason="other_version", detail=detail)


def _not_loaded(sent: Sent, engine: FakeEngine) -> None:
    engine.refusal = Refusal(reason="not_loaded", detail="it is being loaded")
    if sent.path.endswith("/ready"):
        engine.state = replace(engine.state, version=None, canary=None, others=())
        sent.path = sent.path.replace("/versions/2", "")


def _late(sent: Sent, engine: FakeEngine) -> None:
    engine.takes_s = 60.0
    sent.headers["Ship-Timeout"] = "0.3"


def _not_json(sent: Sent, _: FakeEngine) -> None:
    sent.with_json({"items": [{**ITEMS[0], "threshold": 1}]})


def _too_much(sent: Sent, _: FakeEngine) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [5], "data": ["x"] * 5}
    sent.with_json({"items": ITEMS * 5} if "batch" in sent.path else {"inputs": [tensor]})


SPOILED: dict[str, Callable[[Sent, FakeEngine], None]] = {
    "task-missing": _task_missing,
    "task-invalid": _task_invalid,
    "version-invalid": _version_invalid,
    "key-invalid": _key_invalid,
    "version-in-path": _header("Ship-Version", "3"),
    "timeout-invalid": _header("Ship-Timeout", "soon"),
    "header-ambiguous": _ambiguous,
    "body-empty": _content(b""),
    "body-corrupt": _header("Content-Encoding", "gzip"),
    "body-late": _stalled,
    "form-invalid": _header("Content-Type", "multipart/form-data"),
    "json-invalid": _not_json,
    "binary-tensors": _header("Inference-Header-Content-Length", "7"),
    "page-invalid": _no_page,
    "task-unknown": _unknown,
    "task-waiting": _idle("no_champion"),
    "task-retired": _idle("retired"),
    "version-not-served": _other_version,
    "not-acceptable": _header("Accept", "text/html"),
    "body-too-large": _content(bytes(300_001)),
    "image-too-large": _image(draw_png(size=(41, 30))),
    "batch-too-large": _too_much,
    "content-type-unsupported": _header("Content-Type", "text/plain"),
    "content-encoding-unsupported": _header("Content-Encoding", "br"),
    "image-too-small": _other_view(View(crop=(0, 0, 100, 100))),
    "image-unsupported": _image(b"<svg/>"),
    "image-corrupt": _image(PNG[:200]),
    "image-too-costly": _image(jpeg_of_scans(200)),
    "busy": _raise(EngineBusyError("full")),
    "failed": _refuse("failed", "the forward pass failed (RuntimeError)"),
    "not-ready": _refuse("not_ready", "the catalog is being loaded"),
    "task-not-loaded": _not_loaded,
    "unavailable": _raise(EngineUnavailableError("dead")),
    "late": _late,
    "closing": _close,
    "version-changed": _change_version,
}


def _with_token(scope: TokenScope | None, text: str | None = None) -> Callable[[Sent, FakeEngine], None]:
    def spoil(sent: Sent, _: FakeEngine) -> None:
        made = sent.known.make("line-1", scope or TokenScope(admin=True))
        if scope is not None or text is not None:
            sent.headers["Authorization"] = f"Bearer {text or made}"

    return spoil


SPOILED |= {
    "token-missing": _with_token(None),
    "token-invalid": _with_token(None, "ship_0000"),
    "not-allowed": _with_token(TokenScope(predict=("line-1-*",))),
}


def _problems() -> list[tuple[str, str, str]]:
    found = []
    for path, method in OPERATIONS:
        for status, response in DOCUMENT["paths"][path][method]["responses"].items():
            if status != "200":
                [content] = response["content"].values()
                found += [(path, method, kind) for kind in content.get("examples", {})]
    return found


def is_alike(example: Any, found: Any) -> bool:
    """Whether both have the same keys and types; each item of an example's list is like one found."""
    if isinstance(example, dict) and isinstance(found, dict):
        return example.keys() == found.keys() and all(is_alike(example[key], found[key]) for key in example)
    if isinstance(example, list) and isinstance(found, list):
        return all(any(is_alike(one, other) for other in found) for one in example)
    numbers = (int, float)
    return (
        found is None or type(example) is type(found) or (type(example) in numbers and type(found) in numbers)
    )


def test_it_is_valid_and_served(call: Caller) -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    reply = call("GET", "/openapi.json")
    assert reply.json() == DOCUMENT


def test_it_has_every_route_and_no_other(call: Caller) -> None:
    routes = [route for route in call.app.routes if not route.path.startswith("/docs")]
    found = {(route.path, method.lower()) for route in routes for method in route.methods - {"HEAD"}}
    assert found == set(OPERATIONS)
    assert {route.path for route in call.app.routes} == set(PATHS), (
        "each is counted and logged under its name"
    )


def test_every_component_is_used() -> None:
    text = json.dumps(DOCUMENT)
    for name in DOCUMENT["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
    assert set(KINDS) - UNDOCUMENTED == {kind for _, _, kind in _problems()}


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_are_as_described(call: Caller, path: str, method: str) -> None:
    # All that an answer may have.
    engine = call.engine
    engine.decision, engine.because, engine.rules = "unsure", "several", repeat("ab" * 32)
    engine.of_backbone = next(iter(call.app.state.front.backbones))
    reply = Sent(path, method).send(call)
    assert reply.status_code == 200, reply.text
    described = DOCUMENT["paths"][path][method]["responses"]["200"]
    media_type = reply.headers["content-type"].partition(";")[0]
    content = described["content"][media_type]
    assert set(map(str.lower, described["headers"])) <= set(reply.headers)
    if media_type != "application/json":
        return
    check_schema(reply.json(), content["schema"])
    if path != "/openapi.json":
        check_schema(content["example"], content["schema"])
        assert is_alike(content["example"], reply.json())


def test_an_explanation_is_a_picture_if_that_is_wanted(call: Caller) -> None:
    sent = Sent("/v1/explain", "post")
    sent.headers["Accept"] = "image/png"
    assert (
        sent.send(call).headers["content-type"]
        in (DOCUMENT["paths"]["/v1/explain"]["post"]["responses"]["200"]["content"])
    )


@pytest.mark.parametrize(("path", "method", "kind"), _problems())
def test_problems_are_as_described(call: Caller, path: str, method: str, kind: str) -> None:
    sent = Sent(path, method)
    SPOILED[kind](sent, call.engine)
    reply = sent.send(call)
    status = KINDS[kind].status
    assert reply.status_code == status, reply.text
    described = DOCUMENT["paths"][path][method]["responses"][str(status)]
    [(media_type, content)] = described["content"].items()
    assert reply.headers["content-type"] == media_type
    example = content["examples"][kind]["value"]
    for value in (reply.json(), example):
        check_schema(value, content["schema"])
    if media_type == "application/json":
        assert reply.json()["error"].partition(":")[0] == example["error"].partition(":")[0]
    else:
        assert {**reply.json(), "detail": example["detail"]} == example
    assert set(map(str.lower, described.get("headers", {}))) <= set(reply.headers)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_it_says_which_routes_need_no_token(call: Caller, path: str, method: str) -> None:
    sent = Sent(path, method)
    sent.known.make("line-1", TokenScope(admin=True))
    is_open = sent.send(call).status_code == 200
    assert is_open == (DOCUMENT["paths"][path][method].get("security") == [])


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_examples_of_requests_are_as_described(path: str, method: str) -> None:
    body = DOCUMENT["paths"][path][method].get("requestBody", {"content": {}})
    for content in body["content"].values():
        if "example" in content:
            check_schema(content["example"], content["schema"])
