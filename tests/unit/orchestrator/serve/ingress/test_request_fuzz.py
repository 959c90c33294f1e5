"""Requests drawn at random: answered as their headers and body mean, or refused with a problem document."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.store.documents.tokens import Scope as TokenScope
from ship.backbone import Backbone
from ship.images.decoding import decode_pixels
from tests.unit.json_changes import changed, written
from tests.unit.orchestrator.serve.caller import LIMITS, PNG, Caller, decode_with
from tests.unit.orchestrator.serve.ingress.hostile_request import BATCH, FORM, INFER, JSON, part
from tests.unit.orchestrator.serve.ingress.known_tokens import Known

BOUNDED = settings(
    derandomize=True, max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
# fmt: off
VALUES = st.one_of(
    st.sampled_from([
        b"bolts", b"bolts ", b" bolts", b"Bolts", b"b\xc3\xb6lts", b"bolts,bolts", b"bolts\x00", b"../bolts",
        b"", b" ", b"1", b"01", b"+1", b"-1", b"1.0", b"1e3", b"0", b"0.5", b"nan", b"inf", b"9" * 9,
        b"9" * 400, b"\xd9\xa1", b"\xff\xfe", b"a" * 128, b"a" * 129, b"Bearer", b"Bearer x", b"Basic dTpw",
        b"image/png", b"*/*", b"\t1",
    ]),
    st.binary(max_size=6), st.text(max_size=4).map(lambda text: text.encode(errors="surrogatepass")),
)
NAMES = st.sampled_from([
    b"ship-task", b"Ship-Task", b"ship-version", b"ship-key", b"ship-timeout", b"authorization", b"accept",
    b"content-type", b"content-length", b"content-encoding", b"accept-encoding", b"origin",
    b"x-forwarded-for",
])
# fmt: on
TENSOR = {
    "id": "1",
    "parameters": {"key": "a"},
    "inputs": [
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(PNG).decode()]},
    ],
    "outputs": [{"name": "label"}],
}
ITEMS = {
    "items": [{"image": "a", "task": "bolts", "version": 1, "key": "k"}, {"image": "a", "task": "bolts"}]
}


@dataclass
class Guarded(Caller):
    """A client of an application with access control, and a token for two tasks."""

    token: str = ""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        known = Known()
        self.token = known.make("plc", TokenScope(predict=("bolts", "nuts-*")))
        self.app = make_app(self.engine, backbone.info, LIMITS, tokens=known)
        decode_with(self.app, Decoder(backbone.info, LIMITS, decode_pixels))


@pytest.fixture(scope="module")
def caller(backbone: Backbone) -> Caller:
    return Caller(backbone)


@pytest.fixture(scope="module")
def guarded(backbone: Backbone) -> Guarded:
    return Guarded(backbone)


def is_sound(reply: httpx.Response) -> bool:
    """Whether it is an answer or a problem document, and no failure of the server."""
    if reply.status_code == 200:
        return True
    problem = reply.json()
    named = {"type", "title", "status", "detail"} <= set(problem) or set(problem) == {"error"}
    return 400 <= reply.status_code < 500 and named and len(reply.content) < 5000


@settings(parent=BOUNDED, max_examples=200)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=4), st.booleans())
def test_headers_mean_what_they_say_or_are_refused(
    caller: Caller, headers: list[tuple[bytes, bytes]], has_task: bool
) -> None:
    sent = [*headers, *([(b"ship-task", b"bolts")] if has_task else [])]
    reply = caller("POST", "/v1/predict", content=PNG, headers=sent)
    assert is_sound(reply), reply.text
    named = {value for name, value in sent if name.lower() == b"ship-task"}
    versions = {value for name, value in sent if name.lower() == b"ship-version"}
    if reply.status_code == 200:
        assert {value.strip() for value in named} == {b"bolts"}
        assert all(value.strip().isdigit() and len(value) < 12 for value in versions)
        assert reply.json()["task"] == "bolts"
    elif {name.lower() for name, _ in headers} <= {b"ship-task"} and named == {b"bolts"}:
        raise AssertionError(f"a sound request was refused: {reply.text}")


@BOUNDED
@given(st.lists(VALUES, min_size=1, max_size=2), st.sampled_from(["drawn", "other", "right"]))
def test_only_the_right_token_lets_a_request_in(guarded: Guarded, drawn: list[bytes], kind: str) -> None:
    right = f"Bearer {guarded.token}".encode()
    # Of another secret, as long as the right one.
    other = right[:-6] + (b"AAAAAA" if not right.endswith(b"AAAAAA") else b"BBBBBB")
    values = {"drawn": drawn, "other": [other], "right": [right]}[kind]
    headers = [(b"ship-task", b"bolts"), *((b"authorization", value) for value in values)]
    reply = guarded("POST", "/v1/predict", content=PNG, headers=headers)
    assert reply.status_code == (200 if kind == "right" else 401), reply.text
    assert guarded.token.encode() not in reply.content
    assert other.removeprefix(b"Bearer ") not in reply.content


@BOUNDED
@given(st.text(max_size=8) | st.sampled_from(["nuts", "nuts-", "nuts-1", "bolts-2", "*", "nuts-*", "b*"]))
def test_a_token_covers_its_own_tasks_alone(guarded: Guarded, task: str) -> None:
    headers = [
        (b"ship-task", task.encode(errors="replace")),
        (b"authorization", f"Bearer {guarded.token}".encode()),
    ]
    reply = guarded("POST", "/v1/predict", content=PNG, headers=headers)
    assert reply.status_code in (200, 400, 403, 404)
    if reply.status_code in (200, 404):
        assert task.strip() == "bolts" or task.strip().startswith("nuts-")


@BOUNDED
@given(
    st.one_of(
        changed(TENSOR).map(lambda value: json.dumps(value).encode()), written(json.dumps(TENSOR).encode())
    )
)
def test_tensors_are_answered_or_refused(caller: Caller, body: bytes) -> None:
    reply = caller("POST", INFER, content=body, headers=JSON)
    assert is_sound(reply), reply.text
    if reply.status_code == 200:
        assert json.loads(body)["inputs"], "without a picture there is no answer"


@BOUNDED
@given(changed(ITEMS))
def test_a_batch_is_answered_item_by_item_or_refused(caller: Caller, document: Any) -> None:
    body = part(b'name="request"', json.dumps(document).encode()) + part(b'name="a"; filename="a.png"', PNG)
    reply = caller("POST", BATCH, content=body + b"--b--\r\n", headers=[(b"content-type", FORM)])
    assert is_sound(reply), reply.text
    if reply.status_code == 200:
        assert len(reply.json()["items"]) == len(document["items"])


@BOUNDED
@given(st.data())
def test_forms_are_answered_or_refused(caller: Caller, data: st.DataObject) -> None:
    form = part(b'name="image"; filename="a.png"', PNG) + b"--b--\r\n"
    body = data.draw(written(form))
    reply = caller(
        "POST", "/v1/predict", content=body, headers=[(b"ship-task", b"bolts"), (b"content-type", FORM)]
    )
    assert is_sound(reply), reply.text
