"""A page of metrics has the counts of all ingresses, whichever of them is asked."""

import asyncio

import httpx
from fastapi import FastAPI
from ray.serve.exceptions import RayServeException

from orchestrator.serve.ingress.app import make_app, read_families
from orchestrator.serve.ingress.looks import Looks
from orchestrator.serve.ingress.peers import Families, Peers
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.factory import Broadcast, FakeEngine


class Fleet:
    """Ingresses of one endpoint, and the handle of their deployment."""

    def __init__(self, backbone: Backbone, *names: str) -> None:
        self.is_down = False
        self.looks = Looks()
        limits = Limits(probe_keep_s=0.0)
        self.apps = {
            name: make_app(FakeEngine(), backbone.info, limits, peers=Peers(name, lambda: self))
            for name in names
        }

    def broadcast(self, method: str) -> Broadcast:
        assert method == "families"
        if self.is_down:
            raise RayServeException("no controller")
        return Broadcast([self._families(name, app) for name, app in self.apps.items()])

    async def _families(self, name: str, app: FastAPI) -> tuple[str, Families]:
        if name == "dead":
            raise RayServeException("died")
        return name, await read_families(app.state.front.metrics, self.looks)

    async def get(self, name: str, path: str) -> str:
        transport = httpx.ASGITransport(self.apps[name])
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            return (await client.get(path)).text


def counted(page: str) -> dict[str, float]:
    """Requests for the list of tasks by ingress."""
    found = {}
    for line in page.splitlines():
        if line.startswith("ship_requests_total") and 'route="/v1/tasks"' in line:
            found[line.partition('ingress="')[2].partition('"')[0]] = float(line.rpartition(" ")[2])
    return found


def test_whichever_is_asked_the_page_has_all_counts(backbone: Backbone) -> None:
    async def run() -> None:
        fleet = Fleet(backbone, "a", "b", "dead")
        for name in ("a", "b", "b"):
            await fleet.get(name, "/v1/tasks")
        pages = [await fleet.get(name, "/metrics") for name in ("a", "b")]
        for page in pages:
            assert counted(page) == {"a": 1.0, "b": 2.0}
            lines = page.splitlines()
            assert len([line for line in lines if line == "# TYPE ship_requests_total counter"]) == 1
            # What an engine holds is told once, whoever asks for it.
            swaps = [line for line in lines if line.startswith("ship_swaps_total")]
            assert swaps == ['ship_swaps_total{backbone="",engine="a"} 3.0']

    asyncio.run(run())


def test_while_the_others_cannot_be_asked_what_they_said_last_stays(backbone: Backbone) -> None:
    async def run() -> None:
        fleet = Fleet(backbone, "a", "b")
        await fleet.get("b", "/v1/tasks")
        await fleet.get("a", "/metrics")
        fleet.is_down = True
        await fleet.get("a", "/v1/tasks")
        assert counted(await fleet.get("a", "/metrics")) == {"a": 1.0, "b": 1.0}

    asyncio.run(run())


def test_one_ingress_alone_has_no_label(backbone: Backbone) -> None:
    async def ask() -> str:
        transport = httpx.ASGITransport(make_app(FakeEngine(), backbone.info))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            await client.get("/v1/tasks")
            return (await client.get("/metrics")).text

    page = asyncio.run(ask())
    assert 'ship_requests_total{route="/v1/tasks",status="200"} 1.0' in page
    assert "ingress=" not in page
