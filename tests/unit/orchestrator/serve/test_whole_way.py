"""From a request to a real replica and back, without Ray between them: all routes agree on one image.

The replica is asked as another process, or is inside of the ingress.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.engine_api import Engine
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.ingress.engine_inside import EngineInside
from orchestrator.serve.options import EngineOptions
from orchestrator.store.documents.catalog import Canary, Catalog
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.backbone import Backbone
from ship.images import decode_image
from ship.runtime.explain import explain
from ship.runtime.runtime import Runtime
from tests.unit.orchestrator.serve.factory import (
    Handle,
    LoadedBackbone,
    draw_png,
    make_artifact,
    make_labels,
    make_prompt,
    make_replica,
)
from tests.unit.orchestrator.serve.residency.prompt_pool import PATIENCE_S

FIRST, SECOND = draw_png(1), draw_png(2)
# Batches of other sizes sum in another order.
CLOSE = 1e-5


ENGINES: dict[str, Callable[[EngineReplica], Engine]] = {
    "apart": lambda replica: RayEngine(Handle(replica), 30.0),
    "inside": lambda replica: EngineInside(replica, 30.0),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, replica: EngineReplica) -> Engine:
    return ENGINES[request.param](replica)


@pytest.fixture
def replica(backbone: Backbone, tmp_path: Path) -> Iterator[EngineReplica]:
    replica = make_replica(backbone, tmp_path)
    yield replica
    replica._follower.stop()


def converse(
    engine: Engine, backbone: Backbone, talk: Callable[[httpx.AsyncClient], Awaitable[None]]
) -> None:
    """All requests in one event loop, as in an ingress."""

    async def run() -> None:
        transport = httpx.ASGITransport(make_app(engine, backbone.info))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            await talk(client)

    asyncio.run(run())


async def predict(client: httpx.AsyncClient, task: str, image: bytes) -> dict[str, Any]:
    reply = await client.post("/v1/predict", content=image, headers={"Ship-Task": task})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_a_batch_says_what_predictions_say(engine: Engine, backbone: Backbone) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        items = [
            {"image": image, "task": task}
            for image in ("first", "second")
            for task in ("bolts", "nuts", "caps")
        ]
        document = (None, json.dumps({"items": items}), "application/json")
        reply = await client.post(
            "/v1/predict:batch", files={"request": document, "first": FIRST, "second": SECOND}
        )
        assert reply.status_code == 200, reply.text
        for item, answer in zip(items, reply.json()["items"], strict=True):
            if item["task"] == "caps":
                assert answer["error"]["status"] == 404
                continue
            alone = await predict(client, item["task"], {"first": FIRST, "second": SECOND}[item["image"]])
            assert (answer["label"], answer["digest"]) == (alone["label"], alone["digest"])
            assert answer["probabilities"] == pytest.approx(alone["probabilities"], abs=CLOSE)

    converse(engine, backbone, talk)


def test_tensors_say_what_predictions_say(engine: Engine, backbone: Backbone) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        alone = [await predict(client, "nuts", image) for image in (FIRST, SECOND)]
        files = [base64.b64encode(image).decode() for image in (FIRST, SECOND)]
        pixels = [
            decode_image(image, size=backbone.image_size, interpolation=backbone.interpolation).tolist()
            for image in (FIRST, SECOND)
        ]
        for datatype, shape, data in (("BYTES", [2], files), ("UINT8", [2, 3, 32, 32], pixels)):
            tensor = {"name": "image", "datatype": datatype, "shape": shape, "data": data}
            reply = await client.post("/v2/models/nuts/versions/2/infer", json={"inputs": [tensor]})
            assert reply.status_code == 200, reply.text
            found = {output["name"]: output for output in reply.json()["outputs"]}
            assert found["labels"]["data"] == sorted(make_labels("nuts", 3, 2))
            rows = np.reshape(found["probabilities"]["data"], found["probabilities"]["shape"])
            for row, label, answer in zip(rows, found["label"]["data"], alone, strict=True):
                assert label == answer["label"]
                by_label = dict(zip(found["labels"]["data"], row, strict=True))
                assert by_label == pytest.approx(answer["probabilities"], abs=CLOSE)

    converse(engine, backbone, talk)


def test_an_explanation_is_that_of_the_prompt_that_answers(engine: Engine, backbone: Backbone) -> None:
    runtime = Runtime(backbone, capacity_bytes=16 << 20)
    slot = runtime.insert(make_prompt(backbone, 3, seed=2))
    image_3HW = decode_image(FIRST, size=backbone.image_size, interpolation=backbone.interpolation)
    expected = explain(runtime, image_3HW, slot)

    async def talk(client: httpx.AsyncClient) -> None:
        headers = {"Ship-Task": "nuts", "Accept": "application/json"}
        found = (await client.post("/v1/explain", content=FIRST, headers=headers)).json()
        answer = await predict(client, "nuts", FIRST)
        assert (found["version"], found["digest"]) == (answer["version"], answer["digest"])
        np.testing.assert_allclose(found["attention"], expected.prompted_TYX[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(found["bare_attention"], expected.bare_TYX[0].numpy(), atol=1e-6)
        assert found["distance"] == pytest.approx(expected.distance, abs=1e-5)
        other = await client.post("/v1/explain", content=FIRST, headers={**headers, "Ship-Version": "7"})
        assert other.status_code == 404
        unknown = await client.post("/v1/explain", content=FIRST, headers={**headers, "Ship-Task": "caps"})
        assert unknown.json()["type"].endswith("task-unknown")

    converse(engine, backbone, talk)


def test_one_image_gets_one_version_while_a_canary_runs(
    replica: EngineReplica, engine: Engine, backbone: Backbone, tmp_path: Path
) -> None:
    store = PromptStore(LocalObjects(tmp_path))
    catalog, etag = store.read_catalog()
    second = store.publish("bolts", "3" * 64, make_artifact(backbone, "bolts", seed=3)).digest
    bolts = replace(catalog.entries["bolts"], others={2: second}, canary=Canary(version=2, share=0.5))
    store.write_catalog(Catalog(entries={**catalog.entries, "bolts": bolts}), if_match=etag)
    replica._follower.step()
    assert replica._residency.wait_loaded(PATIENCE_S)

    async def talk(client: httpx.AsyncClient) -> None:
        images = [draw_png(seed) for seed in range(20)]
        versions = [
            [(await predict(client, "bolts", image))["version"] for _ in range(3)] for image in images
        ]
        assert all(len(set(found)) == 1 for found in versions)
        assert {found[0] for found in versions} == {1, 2}, "all alike by chance: two in a million"
        named = [
            await client.post(
                "/v1/predict", content=image, headers={"Ship-Task": "bolts", "Ship-Key": "line-7"}
            )
            for image in images
        ]
        assert len({reply.json()["version"] for reply in named}) == 1, "a key that is given decides"

    converse(engine, backbone, talk)


def test_replies_probes_and_metrics_name_the_precision_that_serves(
    replica: EngineReplica, backbone: Backbone, tmp_path: Path
) -> None:
    half = make_replica(backbone, tmp_path / "half", "bfloat16")
    said: dict[str, dict[str, Any]] = {}

    async def talk(client: httpx.AsyncClient, name: str) -> None:
        for route in ("/v1/predict", "/v1/explain"):
            reply = await client.post(route, content=FIRST, headers={"Ship-Task": "bolts"})
            assert (reply.status_code, reply.headers["Ship-Precision"]) == (200, name)
        said[name] = await predict(client, "bolts", FIRST)
        assert (await client.get("/readyz")).json()["precision"] == name
        lines = (await client.get("/metrics")).text.splitlines()
        assert [line for line in lines if line.startswith("ship_engine_precision{")] == [
            f'ship_engine_precision{{engine="{asked._residency.stats().replica}",precision="{name}"}} 1.0'
        ]

    for asked, name in ((replica, "float32"), (half, "bfloat16")):
        converse(EngineInside(asked, 30.0), backbone, partial(talk, name=name))
    half._follower.stop()
    exact, coarse = said["float32"], said["bfloat16"]
    assert coarse["probabilities"] != exact["probabilities"], "another arithmetic"
    # Eight bits of mantissa through four blocks, and a head ten times the usual size.
    assert coarse["probabilities"] == pytest.approx(exact["probabilities"], abs=0.2)


def test_a_small_backbone_shares_its_passes_among_no_threads(backbone: Backbone, tmp_path: Path) -> None:
    store = PromptStore(LocalObjects(tmp_path))
    store.write_catalog(Catalog(entries={}), if_match=None)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        replica = EngineReplica(LoadedBackbone(backbone), str(tmp_path), 8, EngineOptions())
        assert torch.get_num_threads() == 1
        replica._follower.stop()
    finally:
        torch.set_num_threads(before)
