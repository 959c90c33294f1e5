"""Every method on every path: its answer, or 405 that names the methods there are; never a failure."""

import asyncio

import httpx
import pytest

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.paths import PATHS
from orchestrator.store.documents.tokens import Scope
from ship.backbone import Backbone
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
    [own] = [route.methods for route in app.routes if route.path == path]
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
        elif method in own:
            assert reply.status_code in (200, 400), method
        else:
            assert reply.status_code == 405, method
            assert set(reply.headers["allow"].split(", ")) == own
