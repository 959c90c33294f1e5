"""Authentication and authorization of requests; neither a log nor a reply ever has a secret."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.middleware.access_log import LOGGER
from orchestrator.serve.ingress.middleware.auth import RequireToken
from orchestrator.store.documents.token_changes import revoke_token, rotate_token
from orchestrator.store.documents.tokens import Scope as TokenScope
from orchestrator.store.documents.tokens import Tokens
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import LIMITS, PNG, TO_BOLTS, Caller, assert_problem
from tests.unit.orchestrator.serve.factory import FakeEngine
from tests.unit.orchestrator.serve.ingress.known_tokens import Known

BOLTS = TokenScope(predict=("bolt*",))
NUTS = TokenScope(predict=("nuts", "gear-*"))
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")


class Guarded(Caller):
    """A client of an application that wants tokens."""

    def __init__(self, backbone: Backbone, known: Known) -> None:
        self.engine = FakeEngine()
        self.known = known
        self.app = make_app(self.engine, backbone.info, LIMITS, tokens=known)

    def by(self, name: str, method: str, path: str, **request: Any) -> httpx.Response:
        """Call with the token of that name."""
        headers = {**bearer(self.known.texts[name]), **request.pop("headers", {})}
        return self(method, path, headers=headers, **request)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def known() -> Known:
    known = Known()
    known.make("bolts", BOLTS)
    known.make("nuts", NUTS)
    known.make("prometheus", TokenScope(metrics=True))
    known.make("ops", TokenScope(admin=True))
    return known


@pytest.fixture
def call(backbone: Backbone, known: Known) -> Guarded:
    return Guarded(backbone, known)


def assert_refused(reply: httpx.Response, kind: str) -> str:
    """Check a 401; returns its detail."""
    assert reply.headers["www-authenticate"].startswith("Bearer")
    return assert_problem(reply, 401, kind)


def test_a_token_asks_its_tasks_and_no_others(call: Guarded) -> None:
    assert call.by("bolts", "POST", "/v1/predict", content=PNG, headers=TO_BOLTS).status_code == 200
    assert call.by("ops", "POST", "/v1/predict", content=PNG, headers=TO_BOLTS).status_code == 200
    for name in ("nuts", "prometheus"):
        reply = call.by(name, "POST", "/v1/predict", content=PNG, headers=TO_BOLTS)
        detail = assert_problem(reply, 403, "not-allowed")
        assert "'bolts'" in detail
        assert repr(name) in detail
    assert "nuts, gear-*" in call.by("nuts", "GET", "/v1/tasks/bolts").json()["detail"]
    assert len(call.engine.asked) == 2


def test_whether_a_task_exists_is_told_to_tokens_with_access_to_it(call: Guarded) -> None:
    assert_problem(call.by("bolts", "GET", "/v1/tasks/sprockets"), 403, "not-allowed")
    assert_problem(call.by("bolts", "GET", "/v1/tasks/bolts.m6"), 404, "task-unknown")
    assert call.by("bolts", "GET", "/v1/tasks/bolts").json()["labels"] == ["good", "bad"]


def test_a_list_has_the_tasks_that_may_be_asked(call: Guarded) -> None:
    listed = {
        name: [task["task"] for task in call.by(name, "GET", "/v1/tasks").json()["tasks"]]
        for name in call.known.texts
    }
    assert listed == {"bolts": ["bolts"], "nuts": [], "prometheus": [], "ops": ["bolts"]}


def test_a_batch_is_checked_item_by_item(call: Guarded) -> None:
    items = [{"task": "bolts", "image": "a"}, {"task": "nuts", "image": "a"}]
    reply = call.batch({"a": PNG}, items, **bearer(call.known.texts["bolts"]))
    assert reply.status_code == 200, reply.text
    answered, forbidden = reply.json()["items"]
    assert answered["label"] == "bad"
    assert (forbidden["error"]["status"], forbidden["error"]["type"]) == (403, "urn:ship:problem:not-allowed")
    assert [task for _, task, _ in call.engine.asked] == ["bolts"]


def test_metrics_take_a_scope_of_their_own_or_all(call: Guarded) -> None:
    for name in ("prometheus", "ops"):
        assert call.by(name, "GET", "/metrics").status_code == 200
    assert_problem(call.by("bolts", "GET", "/metrics"), 403, "not-allowed")


def test_probes_need_no_token(call: Guarded) -> None:
    for path in OPEN:
        assert call("GET", path).status_code == 200, path
        assert call("GET", path, headers={"Authorization": "Bearer nonsense"}).status_code == 200, path
        assert_refused(call("GET", f"{path}/"), "token-missing") if path.startswith(("/h", "/r")) else None


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of all routes but the open ones, each for the task ``bolts``."""
    return [
        (method, route.path.replace("{task}", "bolts").replace("{version}", "2"))
        for route in app.routes
        if isinstance(route, APIRoute) and route.path not in OPEN
        for method in route.methods
    ]


def test_no_route_but_the_open_ones_answers_strangers_or_reads_their_body(call: Guarded) -> None:
    found = routes(call.app)
    assert ("POST", "/v1/predict") in found
    for method, path in [*found, ("GET", "/openapi.json"), ("GET", "/nowhere"), ("POST", "/healthz/x")]:
        is_protocol = path.startswith("/v2")
        reply = call(method, path, content=b"x" * 1_000_000 if method == "POST" else None, headers=TO_BOLTS)
        assert reply.status_code == 401, path
        assert reply.headers["www-authenticate"] == "Bearer"
        assert ("error" if is_protocol else "detail") in reply.json()
    assert not call.engine.asked


def test_no_route_of_a_task_answers_tokens_without_access_to_it(call: Guarded) -> None:
    of_tasks = [(method, path) for method, path in routes(call.app) if "/bolts" in path]
    of_tasks += [("POST", "/v1/predict"), ("POST", "/v1/explain")]
    assert len(of_tasks) >= 3
    for method, path in of_tasks:
        # Nothing of the body would be accepted: the answer comes before it is read.
        body = {"content": b"x"} if method == "POST" else {}
        reply = call.by("nuts", method, path, headers=TO_BOLTS, **body)
        assert reply.status_code == 403, path
    assert not call.engine.asked


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic dXNlcjpwdw==",
        b"Bearer ship_",
        b"Bearer ship_" + b"0" * 12,
        b"Bearer ship_" + b"0" * 12 + b"_" + b"f" * 63,
        b"Bearer ship_" + b"0" * 12 + b"_" + b"f" * 65,
        b"Bearer ship_" + b"0" * 12 + b"_" + b"F" * 64,
        b"Bearer\xa0ship_" + b"0" * 12 + b"_" + b"f" * 64,
        b"Bearer \xff\xfe\x00",
        b"Bearer " + b"x" * 60_000,
        b"x" * 60_000,
        b" " * 60_000,
        "Bearer ship_²".encode(),
    ],
    ids=range(15),
)
def test_headers_of_odd_shapes_and_sizes_are_refused(call: Guarded, header: bytes) -> None:
    assert_refused(call("GET", "/v1/tasks", headers=[(b"Authorization", header)]), "token-invalid")


def test_two_tokens_are_one_too_many(call: Guarded) -> None:
    value = b"Bearer " + call.known.texts["bolts"].encode()
    reply = call("GET", "/v1/tasks", headers=[(b"Authorization", value), (b"Authorization", value)])
    assert_refused(reply, "token-invalid")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_may_be_written_as_one_likes(call: Guarded, scheme: str) -> None:
    header = {"Authorization": f"{scheme} {call.known.texts['bolts']}"}
    assert call("GET", "/v1/tasks", headers=header).status_code == 200


def test_a_stranger_does_not_learn_whether_a_token_is_unknown_wrong_or_expired(call: Guarded) -> None:
    text = call.known.texts["bolts"]
    expired = call.known.make("old", BOLTS, lifetime_s=1.0)
    replies = [
        call("GET", "/v1/tasks", headers=bearer(sent))
        for sent in (f"ship_{'0' * 12}_{'f' * 64}", text[:-64] + "f" * 64, expired)
    ]
    assert len({reply.text for reply in replies}) == 1
    assert len({reply.headers["www-authenticate"] for reply in replies}) == 1
    assert_refused(replies[0], "token-invalid")


def test_a_change_counts_from_the_moment_that_it_is_known(call: Guarded) -> None:
    old = bearer(call.known.texts["bolts"])
    call.known.tokens, made = rotate_token(call.known.tokens, "bolts", now_s=0.0)
    assert_refused(call("GET", "/v1/tasks", headers=old), "token-invalid")
    assert call("GET", "/v1/tasks", headers=bearer(made.text)).status_code == 200
    call.known.tokens, _ = revoke_token(call.known.tokens, "bolts")
    assert_refused(call("GET", "/v1/tasks", headers=bearer(made.text)), "token-invalid")


def test_before_tokens_are_known_no_request_is_let_in_and_it_is_not_ready(call: Guarded) -> None:
    call.known.tokens = None
    for path in ("/v1/tasks", "/metrics", "/readyz", "/nowhere"):
        reply = call("GET", path, headers=bearer(call.known.texts["ops"]))
        assert_problem(reply, 503, "not-ready")
        assert int(reply.headers["retry-after"]) >= 1
    assert call("GET", "/v2/health/ready").status_code == 503
    assert call("GET", "/healthz").status_code == 200
    call.known.tokens = Tokens()
    assert_refused(call.by("ops", "GET", "/v1/tasks"), "token-invalid")


def test_tokens_that_are_too_old_let_nobody_in_but_probes_and_the_page_that_says_so(call: Guarded) -> None:
    assert "ship_tokens_too_old 0.0" in call.by("prometheus", "GET", "/metrics").text
    call.known.is_stale = True
    for path in ("/v1/tasks", "/v1/tasks/bolts", "/readyz", "/openapi.json", "/nowhere"):
        reply = call.by("ops", "GET", path)
        assert_problem(reply, 503, "tokens-too-old")
        assert int(reply.headers["retry-after"]) >= 1
    assert call("POST", "/v1/predict", content=PNG, headers=TO_BOLTS).status_code == 503
    assert call("GET", "/v2/health/ready").status_code == 503
    assert call("GET", "/healthz").status_code == call("GET", "/v2/health/live").status_code == 200
    assert call("GET", "/metrics").status_code == 401
    assert call.by("bolts", "GET", "/metrics").status_code == 403
    assert call.by("prometheus", "GET", "/metrics").status_code == 200
    call.known.is_stale = False
    assert call.by("bolts", "GET", "/v1/tasks").status_code == 200


@pytest.mark.parametrize("is_stale", [False, True])
def test_metrics_tell_of_the_tokens(backbone: Backbone, known: Known, is_stale: bool) -> None:
    known.is_stale = is_stale
    lines = Guarded(backbone, known).by("prometheus", "GET", "/metrics").text.splitlines()
    assert f"ship_tokens_too_old {float(is_stale)}" in lines
    assert f"ship_token_grace_seconds {LIMITS.token_grace_s}" in lines


def test_without_access_control_every_request_is_let_in(backbone: Backbone) -> None:
    call = Caller(backbone)
    assert call.predict().status_code == 200
    assert call("GET", "/metrics").status_code == 200
    assert call("GET", "/v1/tasks", headers={"Authorization": "Bearer nonsense"}).status_code == 200


def test_refusals_are_counted(call: Guarded) -> None:
    call("POST", "/v1/predict", content=PNG, headers=TO_BOLTS)
    call.by("nuts", "POST", "/v1/predict", content=PNG, headers=TO_BOLTS)
    lines = call.by("ops", "GET", "/metrics").text.splitlines()
    for status in (401, 403):
        assert f'ship_requests_total{{route="/v1/predict",status="{status}"}} 1.0' in lines


def test_a_log_has_the_ids_and_never_a_secret(call: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = call.known.texts["bolts"]
    _, token_id, secret = text.split("_")
    wrong = "e" * 64
    replies = [
        call.by("bolts", "POST", "/v1/predict", content=PNG, headers=TO_BOLTS),
        call.by("bolts", "GET", "/metrics"),
        call("GET", "/v1/tasks", headers=bearer(f"ship_{token_id}_{wrong}")),
        call("GET", "/v1/tasks", headers=bearer(secret)),
        call("GET", "/v1/tasks", headers={"Authorization": secret}),
    ]
    assert [reply.status_code for reply in replies] == [200, 403, 401, 401, 401]
    assert f"refused: token {token_id} came with a wrong secret" in caplog.text
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert [f'"token": "{token_id}"' in line for line in lines] == [True, True, False, False, False]
    for shown in (
        caplog.text,
        *(reply.text for reply in replies),
        *(str(reply.headers) for reply in replies),
    ):
        assert secret not in shown
        assert wrong not in shown


def test_a_flood_of_wrong_tokens_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    guard = RequireToken(Inner(), Known(Tokens()), monotonic=clock)
    wrong = f"Bearer ship_{'0' * 12}_{'f' * 64}".encode()
    scope = {"type": "http", "path": "/x", "headers": [(b"authorization", wrong)]}
    for _ in range(50):
        assert knock(guard, dict(scope))[0]["status"] == 401
    clock.now_s += 1.0
    knock(guard, dict(scope))
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name == "orchestrator.serve.ingress.middleware.auth"
    ]
    assert told == [
        f"refused: token {'0' * 12} is not known",
        f"refused: token {'0' * 12} is not known (49 more refusals since the last such line)",
    ]


class Inner:
    """An application that knows only whether it was reached."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})


class Clock:
    """Seconds that pass when told to."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def knock(guard: RequireToken, scope: dict[str, Any]) -> list[Message]:
    """Messages that are sent, without anything being read."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nothing may be read")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent


def test_a_token_dies_on_time() -> None:
    known, clock = Known(), Clock()
    text = known.make("bolts", BOLTS, lifetime_s=50.0, now_s=100.0)
    guard = RequireToken(Inner(), known, clock=clock)
    scope = {"type": "http", "path": "/x", "headers": [(b"authorization", b"Bearer " + text.encode())]}
    for clock.now_s, status in ((149.9, 204), (150.0, 401)):
        assert knock(guard, dict(scope))[0]["status"] == status


def test_what_is_no_request_of_http_is_not_let_in() -> None:
    inner = Inner()
    guard = RequireToken(inner, Known(Tokens()))
    knock(guard, {"type": "lifespan"})
    assert knock(guard, {"type": "websocket", "path": "/x", "headers": []}) == [
        {"type": "websocket.close", "code": 1008}
    ]
    assert inner.reached == ["lifespan"]
