"""The page of documentation: all of it from this endpoint, under the same access control as the document."""

import re

import pytest

from orchestrator.serve.ingress.app import make_app
from orchestrator.store.documents.tokens import Scope as TokenScope
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import Caller, assert_problem
from tests.unit.orchestrator.serve.ingress.known_tokens import Known


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


def test_the_page_loads_its_files_from_this_endpoint_alone(call: Caller) -> None:
    page = call("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text, "no other host"
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(found) == 4
    for path in found:
        reply = call("GET", f"/{path}")
        assert reply.status_code == 200, path
        assert len(reply.content) > 50
        assert reply.headers["x-content-type-options"] == "nosniff"
    start = call("GET", "/docs/start.js").text
    assert '"openapi.json"' in start
    assert "//" not in start


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/docs/swagger-ui.css"])
def test_a_browser_is_told_to_load_nothing_else(call: Caller, path: str) -> None:
    policy = dict(
        part.split(" ", 1) for part in call("GET", path).headers["content-security-policy"].split("; ")
    )
    assert policy.pop("default-src") == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    sources = {source for sources in policy.values() for source in sources.split()}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:"}


@pytest.mark.parametrize("name", ["nothing.js", "..%2f__init__.py", "redoc.standalone.js", "%2e%2e"])
def test_other_files_are_not_there(call: Caller, name: str) -> None:
    assert_problem(call("GET", f"/docs/{name}"), 404)


def test_the_page_needs_a_token_where_the_document_does(call: Caller, backbone: Backbone) -> None:
    known = Known()
    known.make("bolts", TokenScope(predict=("bolts",)))
    call.app = make_app(call.engine, backbone.info, tokens=known)
    for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json"):
        assert_problem(call("GET", path), 401, "token-missing")
        headers = {"Authorization": f"Bearer {known.texts['bolts']}"}
        assert call("GET", path, headers=headers).status_code == 200
