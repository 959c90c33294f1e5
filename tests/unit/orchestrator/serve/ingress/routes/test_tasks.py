"""Pages of the list of tasks, and the answers that are kept for a moment."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from orchestrator.serve.engine_api import EngineBusyError
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.options import Limits
from orchestrator.store.documents.tokens import Scope
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import Caller, assert_problem
from tests.unit.orchestrator.serve.factory import BOLTS, FakeEngine
from tests.unit.orchestrator.serve.ingress.known_tokens import Known

NAMES = [f"line-{number:03d}" for number in range(7)]


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    call = Caller(backbone)
    call.engine.more = {name: replace(BOLTS, task=name) for name in NAMES}
    return call


def follow(call: Caller, limit: int, headers: dict[str, str]) -> list[list[str]]:
    """Names of each page."""
    pages: list[list[str]] = []
    cursor = ""
    while True:
        query = f"?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        page = call("GET", f"/v1/tasks{query}", headers=headers).json()
        pages.append([task["task"] for task in page["tasks"]])
        cursor = page["next_cursor"]
        if cursor is None:
            return pages


@pytest.mark.parametrize(("limit", "sizes"), [(3, [3, 3, 2]), (4, [4, 4]), (8, [8]), (500, [8])])
def test_pages_are_the_list_in_the_order_of_names(call: Caller, limit: int, sizes: list[int]) -> None:
    pages = follow(call, limit, {})
    assert [len(page) for page in pages] == sizes
    assert [name for page in pages for name in page] == ["bolts", *NAMES]


def test_a_task_that_leaves_meanwhile_moves_no_other(call: Caller) -> None:
    first = call("GET", "/v1/tasks?limit=3").json()
    del call.engine.more[first["next_cursor"]]
    rest = call("GET", f"/v1/tasks?cursor={first['next_cursor']}").json()
    assert [task["task"] for task in rest["tasks"]] == NAMES[2:]


def test_pages_hold_what_the_token_has_access_to(backbone: Backbone, call: Caller) -> None:
    known = Known()
    some, none = (
        known.make("some", Scope(predict=("*-000", "line-001", "nuts"))),
        known.make("none", Scope(metrics=True)),
    )
    call.app = make_app(call.engine, backbone.info, tokens=known)
    assert follow(call, 1, {"Authorization": f"Bearer {some}"}) == [NAMES[:1], NAMES[1:2]]
    assert follow(call, 2, {"Authorization": f"Bearer {none}"}) == [[]]


REFUSED = (
    "limit=0 limit=501 limit=-1 limit=x limit= limit=1&limit=2 limit=%D9%A3 limit=99999 "
    f"cursor=..%2F cursor=a&cursor=b cursor={'a' * 64} cursor=%00"
)


@pytest.mark.parametrize("query", REFUSED.split())
def test_what_names_no_page_is_refused(call: Caller, query: str) -> None:
    assert_problem(call("GET", f"/v1/tasks?{query}"), 400, "page-invalid")


class Counting(FakeEngine):
    """Counts what it is asked."""

    num_asked = 0

    async def readiness(self):
        self.num_asked += 1
        await asyncio.sleep(0)
        return await super().readiness()

    async def stats(self):
        self.num_asked += 1
        return await super().stats()


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready", "/metrics"])
@pytest.mark.parametrize("error", [None, EngineBusyError("full")])
def test_probes_ask_the_engine_once_a_while(backbone: Backbone, path: str, error: Exception | None) -> None:
    engine = Counting(error=error)
    app = make_app(engine, backbone.info, Limits(probe_keep_s=3600.0))

    async def flood() -> set[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            replies = await asyncio.gather(*(client.get(path) for _ in range(20)))
            return {reply.status_code for reply in (*replies, await client.get(path))}

    assert asyncio.run(flood()) == {429 if error is not None and path != "/metrics" else 200}
    assert engine.num_asked == 1
