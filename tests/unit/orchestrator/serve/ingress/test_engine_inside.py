"""An engine in its ingress' process: time limit, health, and metrics of those in other ingresses."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.engine_api import Ask, EngineUnavailableError, ResidencyStats
from orchestrator.serve.ingress.deployment import Ingress
from orchestrator.serve.ingress.engine_inside import EngineArguments, EngineInside
from orchestrator.serve.ingress.peers import Peers
from orchestrator.serve.options import EngineOptions, Limits
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.factory import Broadcast, LoadedBackbone, draw_png, make_replica

IMAGE = torch.zeros(3, 32, 32, dtype=torch.uint8).numpy()


@pytest.fixture
def replica(backbone: Backbone, tmp_path: Path) -> Iterator[EngineReplica]:
    replica = make_replica(backbone, tmp_path)
    yield replica
    replica._follower.stop()


class Fleet:
    """Handle of the deployment of all ingresses."""

    def __init__(self, *told: list[ResidencyStats] | Exception) -> None:
        self.told = told

    def broadcast(self, method: str) -> Broadcast:
        assert method == "stats"
        return Broadcast([self._tell(each) for each in self.told])

    async def _tell(self, each: Any) -> Any:
        if isinstance(each, Exception):
            raise each
        return each


def test_a_pass_that_hangs_ends_with_the_time_limit(
    replica: EngineReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("orchestrator.serve.engine.deployment.answer_rows", lambda *_: go_on.wait())
    assert replica._residency.wait_loaded(30.0)

    async def ask() -> None:
        try:
            with pytest.raises(EngineUnavailableError, match=r"no engine answered within 0\.2 s"):
                await EngineInside(replica, 0.2).predict([IMAGE], [Ask(task="nuts")], 30.0)
        finally:
            go_on.set()

    asyncio.run(ask())


def test_questions_are_numbered_through_the_images(replica: EngineReplica) -> None:
    images = [IMAGE, IMAGE + 200]
    asks = [Ask(task="nuts", image=number) for number in (1, 0, 1)]
    first, second, third = asyncio.run(EngineInside(replica, 30.0).predict(images, asks, 30.0))
    found = [dict(answer.probabilities) for answer in (first, second, third)]
    assert found[0] == pytest.approx(found[2], abs=1e-5)
    assert found[0] != pytest.approx(found[1], abs=1e-5)


def test_it_is_as_healthy_as_the_engine(replica: EngineReplica) -> None:
    engine = EngineInside(replica, 30.0)
    engine.check()
    replica._follower.stop()
    replica._follower._thread.join()
    with pytest.raises(RuntimeError, match="dead"):
        engine.check()


def test_a_page_of_metrics_has_the_engines_of_all_ingresses(replica: EngineReplica) -> None:
    async def ask(*told: list[ResidencyStats] | Exception) -> list[str]:
        peers = Peers("a", lambda: Fleet(*told))
        return [stats.replica for stats in await EngineInside(replica, 30.0, peers).stats()]

    own = asyncio.run(replica.stats())
    other = [replace(own[0], replica="other")]
    assert asyncio.run(ask(own, other, RuntimeError("died"))) == [own[0].replica, "other"]
    assert asyncio.run(ask()) == [own[0].replica], "its own, if none can be asked"


def test_an_ingress_answers_from_the_engine_inside(
    replica: EngineReplica, backbone: Backbone, tmp_path: Path
) -> None:
    arguments = EngineArguments(
        source=LoadedBackbone(backbone),
        store_url=str(tmp_path),
        num_threads=1,
        options=EngineOptions(slot_bytes=16 << 20, precision="float32"),
    )
    ingress = Ingress(arguments, Limits(), None)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(await ingress.__serve_build_asgi_app__())
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            return await client.post("/v1/predict", content=draw_png(1), headers={"Ship-Task": "nuts"})

    try:
        reply = asyncio.run(ask())
        assert (reply.status_code, reply.json()["version"]) == (200, 2)
        assert [stats.num_resident for stats in asyncio.run(ingress.stats())] == [2]
        ingress.check_health()
    finally:
        ingress._clients[0]._replica._follower.stop()
