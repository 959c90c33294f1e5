"""Every method on every path: its answer, or 405 that names the methods there are; never a failure."""

import asyncio
import json

import httpx
import pytest

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.middleware.access_log import LOGGER
from orchestrator.serve.ingress.paths import PATHS
from orchestrator.store.documents.tokens import Scope
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import Caller
from tests.unit.orchestrator.serve.factory import FakeEngine
from tests.unit.orchestrator.serve.ingress.known_tokens import Known

STANDARD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
OTHER = ("PROPFIND", "MKCOL", "QUERY", "get", "post", "Get", "BREW", "X" * 300, "*")
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["no access control", "no token", "wrong token", "token", "unknown tokens"])
def test_any_method_has_its_answer_or_405(backbone: Backbone, path: str, kind: str) -> None:
    known = Known()
    text = known.make("line-1", Scope(admin=True))
    if kind == "unknown tokens":
        known.tokens = None
    sent = {"token": f"Bearer {text}", "wrong token": "Bearer ship_0000"}.get(kind)
    headers = {} if sent is None else {"Authorization": sent}
    app = make_app(FakeEngine(), backbone.info, tokens=None if kind == "no access control" else known)
    [own] = [route.methods | {"OPTIONS"} for route in app.routes if route.path == path]
    own |= {"HEAD"} if "GET" in own else set()
    path = path.format(task="bolts", version="2", file="start.js")

    async def ask_all() -> list[tuple[str, httpx.Response]]:
        # An error that leaves the application is raised here.
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ship") as client:
            found = []
            for method in (*STANDARD, *OTHER):
                request = client.build_request("GET", path, headers=headers)
                request.method = method
                found.append((method, await client.send(request)))
            return found

    is_let_in = kind in ("no access control", "token") or path in OPEN[::2]
    is_let_in = is_let_in or (path in OPEN and kind != "unknown tokens")
    for method, reply in asyncio.run(ask_all()):
        if not is_let_in:
            assert reply.status_code == (503 if kind == "unknown tokens" else 401)
        elif method == "OPTIONS":
            assert (reply.status_code, reply.content) == (204, b"")
            assert set(reply.headers["allow"].split(", ")) == own
            assert not {"content-length", "content-type"} & set(reply.headers)
        elif method in own:
            assert reply.status_code in (200, 400), method
        else:
            assert reply.status_code == 405, method
            assert set(reply.headers["allow"].split(", ")) == own


@pytest.mark.parametrize("path", [*PATHS, "/v1/tasks/nuts", "/v1/tasks?limit=0", "/nowhere"])
@pytest.mark.parametrize("has_token", [True, False])
def test_head_has_status_and_headers_of_get_and_no_body(
    backbone: Backbone, path: str, has_token: bool
) -> None:
    known = Known()
    headers = {"X-Request-ID": "r"}
    headers |= {"Authorization": f"Bearer {known.make('line-1', Scope(predict=('*',)))}"} if has_token else {}
    app = make_app(FakeEngine(), backbone.info, tokens=known)
    path = path.format(task="bolts", version="2", file="start.js")

    async def ask(method: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ship") as client:
            return await client.request(method, path, headers=headers)

    got, head = asyncio.run(ask("GET")), asyncio.run(ask("HEAD"))
    assert (head.status_code, head.headers) == (got.status_code, got.headers)
    assert (head.content, bool(got.content)) == (b"", True)


def test_the_log_names_the_method_that_was_asked(
    backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", LOGGER)
    call = Caller(backbone)
    for method in ("HEAD", "OPTIONS"):
        call(method, "/healthz")
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == LOGGER]
    assert [(line["method"], line["status"]) for line in lines] == [("HEAD", 200), ("OPTIONS", 204)]
