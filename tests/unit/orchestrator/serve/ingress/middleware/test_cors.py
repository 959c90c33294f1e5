"""Pages of other origins: kept from replies by default, and let in by name."""

from dataclasses import replace

import httpx
import pytest

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.openapi import REPLY_HEADERS
from orchestrator.store.documents.tokens import Scope
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import LIMITS, PNG, TO_BOLTS, Caller
from tests.unit.orchestrator.serve.factory import FakeEngine
from tests.unit.orchestrator.serve.ingress.known_tokens import Known
from tests.unit.orchestrator.serve.ingress.openapi.schema import DOCUMENT

PLANT = "https://plant.example:8443"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "ship-task"}
OTHERS = [
    "https://plant.example",
    "http://plant.example:8443",
    PLANT + ".evil.example",
    "null",
    PLANT.upper(),
]


def shared(reply: httpx.Response) -> list[str]:
    return [name for name in reply.headers if name.startswith("access-control-")]


def allowing(backbone: Backbone, *origins: str) -> Caller:
    return Caller(backbone, replace(LIMITS, cors_origins=origins))


def preflight(call: Caller, origin: str, path: str = "/v1/predict") -> httpx.Response:
    return call("OPTIONS", path, headers={"Origin": origin, **ASKED})


def test_by_default_no_page_is_let_in(backbone: Backbone) -> None:
    call = Caller(backbone)
    replies = [call.predict(Origin=PLANT), preflight(call, PLANT), preflight(call, "*")]
    assert [reply.status_code for reply in replies] == [200, 204, 204]
    for reply in replies:
        assert not shared(reply)
        assert "vary" not in reply.headers
    assert replies[1].headers["allow"] == "POST, OPTIONS", "an answer to OPTIONS like any other"


def test_a_page_that_is_named_reads_every_reply(backbone: Backbone) -> None:
    call = allowing(backbone, "https://other.example", PLANT)
    for reply, status in ((call.predict(Origin=PLANT), 200), (call.predict(b"", Origin=PLANT), 400)):
        assert reply.status_code == status
        assert reply.headers["access-control-allow-origin"] == PLANT
        assert "access-control-allow-credentials" not in reply.headers
        assert reply.headers["vary"] == "Origin"
        exposed = set(reply.headers["access-control-expose-headers"].split(", "))
        assert {*REPLY_HEADERS, "X-Request-ID"} <= exposed


def test_no_other_page_does(backbone: Backbone) -> None:
    call = allowing(backbone, PLANT)
    for origin in OTHERS:
        for reply in (call.predict(Origin=origin), preflight(call, origin)):
            assert not shared(reply), origin
            assert reply.headers["vary"] == "Origin"
    reply = call.predict()
    assert (reply.status_code, shared(reply), reply.headers["vary"]) == (200, [], "Origin")


def test_a_preflight_needs_no_token_and_what_follows_does(backbone: Backbone) -> None:
    known = Known()
    token = known.make("line-1", Scope(predict=("bolts",)))
    call = allowing(backbone, PLANT)
    call.app = make_app(FakeEngine(), backbone.info, replace(LIMITS, cors_origins=(PLANT,)), tokens=known)
    reply = preflight(call, PLANT)
    assert (reply.status_code, reply.content) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == PLANT
    assert preflight(call, OTHERS[0]).status_code == 401
    refused = call("GET", "/v1/tasks", headers={"Origin": PLANT})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PLANT)
    headers = {"Origin": PLANT, "Authorization": f"Bearer {token}"}
    assert call("GET", "/v1/tasks", headers=headers).status_code == 200


def test_a_preflight_allows_every_header_and_method_there_is(backbone: Backbone) -> None:
    reply = preflight(allowing(backbone, PLANT), PLANT)
    allowed = set(reply.headers["access-control-allow-headers"].lower().split(", "))
    operations = [one for methods in DOCUMENT["paths"].values() for one in methods.items()]
    named = {
        parameter["name"].lower()
        for _, operation in operations
        for parameter in operation["parameters"]
        if parameter["in"] == "header"
    }
    assert named | {"authorization", "content-type"} == allowed
    methods = set(reply.headers["access-control-allow-methods"].split(", "))
    assert {method.upper() for method, _ in operations} <= methods


@pytest.mark.parametrize("origin", [PLANT, *OTHERS])
def test_a_star_lets_every_page_in(backbone: Backbone, origin: str) -> None:
    call = allowing(backbone, "*")
    for reply in (call.predict(Origin=origin), preflight(call, origin)):
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "vary" not in reply.headers
    assert not shared(call("POST", "/v1/predict", content=PNG, headers=TO_BOLTS))
