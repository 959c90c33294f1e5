"""Tasks that see pictures in different ways, from a request to a real replica and back."""

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.ingress.tiled_map import lay_back
from orchestrator.serve.options import EngineOptions
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.backbone import Backbone, as_rows
from ship.images import decode_image
from ship.runtime.explain import explain
from ship.runtime.runtime import Runtime
from ship.settings.view import DEFAULT_VIEW, View
from tests.unit.orchestrator.serve.factory import Handle, LoadedBackbone, draw_png, make_artifact
from tests.unit.orchestrator.serve.residency.prompt_pool import PATIENCE_S

SIZE = (60, 50)
FIRST, SECOND = draw_png(1, SIZE), draw_png(2, SIZE)
VIEWS = {
    "whole": DEFAULT_VIEW,
    "tiled": View(tiles="2x2"),
    "cut": View(crop=(10, 5, 40, 30), fit="pad"),
    "cut-tiled": View(crop=(0.1, 0.0, 0.8, 1.0), tiles="1x3", tile_overlap=0.2, fit="crop"),
    "deep": View(bits=12),
    "deep-tiled": View(bits=14, tiles="2x1"),
    "reduced": View(decode="reduced"),
}
# Batches of other sizes sum in another order.
CLOSE = 1e-5


class Plant:
    """A replica that serves a task of each view, and what its prompts say by themselves."""

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        self.backbone = backbone
        self.store = PromptStore(LocalObjects(folder))
        self.runtime = Runtime(backbone, capacity_bytes=16 << 20)
        self.artifacts = {
            task: make_artifact(backbone, task, seed=seed, view=view)
            for seed, (task, view) in enumerate(VIEWS.items(), start=1)
        }
        self.digests = {
            task: self.store.publish(task, f"{number}" * 64, files).digest
            for number, (task, files) in enumerate(self.artifacts.items())
        }
        entries = {task: CatalogEntry(version=1, digest=digest) for task, digest in self.digests.items()}
        self.etag = self.store.write_catalog(Catalog(entries=entries), if_match=None)
        self.replica = EngineReplica(
            LoadedBackbone(backbone), str(folder), 1, EngineOptions(slot_bytes=16 << 20, precision="float32")
        )

    def serve(self, entries: dict[str, CatalogEntry]) -> None:
        """Change the catalog, and wait until it is followed."""
        _, etag = self.store.read_catalog()
        self.store.write_catalog(Catalog(entries=entries), if_match=etag)
        self.replica._follower.step()
        assert self.replica._residency.wait_loaded(PATIENCE_S)

    def see(self, content: bytes, view: View) -> torch.Tensor:
        info = self.backbone.info
        return decode_image(content, size=info.image_size, interpolation=info.interpolation, view=view)

    def expected(self, files: dict[str, bytes], content: bytes) -> dict[str, float]:
        """Probabilities by the prompt's own view, without an endpoint."""
        loaded = load_files(files)
        images = self.see(content, loaded.card.view)
        slot = self.runtime.insert(loaded.prompt)
        [logits_C] = self.runtime.infer(as_rows(images[None]), [slot])
        return dict(zip(loaded.card.labels, torch.softmax(logits_C.double(), dim=0).tolist(), strict=True))

    def converse(self, talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        """All requests in one event loop, as in an ingress."""

        async def run() -> None:
            transport = httpx.ASGITransport(
                make_app(RayEngine(Handle(self.replica), 30.0), self.backbone.info)
            )
            async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
                await talk(client)

        asyncio.run(run())


def draw_deep(bits: int) -> bytes:
    """A PNG of 16 bits that fills fewer, without a tag."""
    samples = np.random.default_rng(bits).integers(0, 2**bits, SIZE[::-1]).astype(np.uint16)
    file = io.BytesIO()
    PillowImage.fromarray(samples).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def plant(backbone: Backbone, tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(backbone, tmp_path)
    yield plant
    plant.replica._follower.stop()


def test_a_task_reads_deep_pictures_by_its_own_bits(plant: Plant) -> None:
    """Also the first one, when the task's bits are not known yet."""
    twelve = draw_deep(12)

    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            for task in ("deep", "deep-tiled"):
                found = await predict(client, task, twelve)
                expected = plant.expected(plant.artifacts[task], twelve)
                assert found["probabilities"] == pytest.approx(expected, abs=CLOSE)
        for task, content, what in (
            ("whole", twelve, "samples up to"),
            ("tiled", twelve, "samples up to"),
            ("deep", draw_deep(14), "above the 4095 of 12 bits"),
        ):
            reply = await client.post("/v1/predict", content=content, headers={"Ship-Task": task})
            assert reply.status_code == 415, reply.text
            assert what in reply.json()["detail"]
        described = (await client.get("/v1/tasks/deep")).json()
        assert described["view"]["bits"] == 12

    plant.converse(talk)


def test_a_task_whose_jpegs_are_decoded_smaller_is_answered_as_it_was_tuned(plant: Plant) -> None:
    """Also the first one, when that is not known yet."""
    file = io.BytesIO()
    PillowImage.open(io.BytesIO(draw_png(3, (640, 480)))).save(file, "JPEG")
    content = file.getvalue()
    assert not torch.equal(plant.see(content, VIEWS["reduced"]), plant.see(content, DEFAULT_VIEW))

    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            found = await predict(client, "reduced", content)
            expected = plant.expected(plant.artifacts["reduced"], content)
            assert found["probabilities"] == pytest.approx(expected, abs=1e-6)
        assert (await client.get("/v1/tasks/reduced")).json()["view"]["decode"] == "reduced"

    plant.converse(talk)


async def predict(client: httpx.AsyncClient, task: str, image: bytes, **headers: str) -> dict[str, Any]:
    reply = await client.post("/v1/predict", content=image, headers={"Ship-Task": task, **headers})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_each_task_is_asked_by_its_own_view(plant: Plant) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):  # The second time the view is known.
            for task, files in plant.artifacts.items():
                found = await predict(client, task, FIRST)
                assert found["probabilities"] == pytest.approx(plant.expected(files, FIRST), abs=CLOSE)

    plant.converse(talk)


def test_a_mixed_batch_of_tiled_and_whole_pictures_says_the_same(plant: Plant) -> None:
    items = [{"image": image, "task": task} for image in ("first", "second") for task in VIEWS]
    images = {"first": FIRST, "second": SECOND, "small": draw_png(3, (20, 10))}
    small = [{"image": "small", "task": task} for task in ("cut", "whole")]

    async def talk(client: httpx.AsyncClient) -> None:
        document = (None, json.dumps({"items": items + small}), "application/json")
        reply = await client.post("/v1/predict:batch", files={"request": document, **images})
        assert reply.status_code == 200, reply.text
        *answers, too_small, whole = reply.json()["items"]
        for item, answer in zip(items, answers, strict=True):
            expected = plant.expected(plant.artifacts[item["task"]], images[item["image"]])
            assert answer["probabilities"] == pytest.approx(expected, abs=CLOSE)
        assert too_small["error"]["status"] == 422
        assert "reaches to 50 x 35" in too_small["error"]["detail"]
        assert whole["task"] == "whole", "what fails, fails alone"
        assert "label" in whole

    plant.converse(talk)


def test_tensors_are_pictures_that_are_seen_by_the_view(plant: Plant) -> None:
    pixels = [np.asarray(PillowImage.open(io.BytesIO(image))).transpose(2, 0, 1) for image in (FIRST, SECOND)]
    files = [base64.b64encode(image).decode() for image in (FIRST, SECOND)]

    async def talk(client: httpx.AsyncClient) -> None:
        for task, artifact in plant.artifacts.items():
            described = (await client.get(f"/v2/models/{task}")).json()["inputs"][0]
            assert described["shape"] == ([-1, 3, 32, 32] if VIEWS[task].is_whole else [-1, 3, -1, -1])
            for datatype, shape, data in (
                ("UINT8", [2, 3, 50, 60], np.stack(pixels).tolist()),
                ("BYTES", [2], files),
            ):
                tensor = {"name": "image", "datatype": datatype, "shape": shape, "data": data}
                reply = await client.post(f"/v2/models/{task}/infer", json={"inputs": [tensor]})
                assert reply.status_code == 200, reply.text
                found = {output["name"]: output for output in reply.json()["outputs"]}
                rows = np.reshape(found["probabilities"]["data"], found["probabilities"]["shape"])
                for row, image in zip(rows, (FIRST, SECOND), strict=True):
                    by_label = dict(zip(found["labels"]["data"], row, strict=True))
                    assert by_label == pytest.approx(plant.expected(artifact, image), abs=CLOSE)

    plant.converse(talk)


def test_an_explanation_is_laid_back_over_the_region(plant: Plant) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for task, view in VIEWS.items():
            slot = plant.runtime.insert(load_files(plant.artifacts[task]).prompt)
            maps = explain(plant.runtime, plant.see(FIRST, view), slot)
            headers = {"Ship-Task": task, "Accept": "application/json"}
            found = (await client.post("/v1/explain", content=FIRST, headers=headers)).json()
            rows, columns = view.grid
            assert np.shape(found["attention"]) == (4 * rows, 4 * columns)
            assert np.sum(found["attention"]) == pytest.approx(1.0, abs=1e-5)
            expected = lay_back(maps.prompted_TYX.numpy(), view, SIZE, plant.backbone.image_size)
            np.testing.assert_allclose(found["attention"], expected, atol=1e-6)
            assert found["distance"] == pytest.approx(maps.distance, abs=1e-5)
            drawn = await client.post("/v1/explain", content=FIRST, headers={"Ship-Task": task})
            assert drawn.headers["content-type"] == "image/png"

    plant.converse(talk)


def test_a_canary_and_a_shadow_of_another_view_see_the_picture_in_their_own_way(plant: Plant) -> None:
    second = make_artifact(plant.backbone, "whole", seed=9, view=VIEWS["tiled"])
    digest = plant.store.publish("whole", "9" * 64, second).digest
    champion = {"version": 1, "digest": plant.digests["whole"], "others": {2: digest}}
    plant.serve({"whole": CatalogEntry(**champion, canary=Canary(version=2, share=0.5), shadow=2)})
    images = [draw_png(seed, SIZE) for seed in range(12)]
    by_version = {1: plant.artifacts["whole"], 2: second}

    async def talk(client: httpx.AsyncClient) -> None:
        versions = []
        for image in images:
            answers = [await predict(client, "whole", image) for _ in range(2)]
            assert answers[0]["version"] == answers[1]["version"], "one image gets one version"
            versions.append(answers[0]["version"])
            expected = plant.expected(by_version[versions[-1]], image)
            assert answers[0]["probabilities"] == pytest.approx(expected, abs=CLOSE)
        assert set(versions) == {1, 2}, "all alike by chance: one in two thousand"
        named = await predict(client, "whole", FIRST, **{"Ship-Version": "2"})
        assert named["probabilities"] == pytest.approx(plant.expected(second, FIRST), abs=CLOSE)
        # The shadow answers by its own view, or the test's time limit ends this.
        while not (await client.get("/v1/tasks/whole")).json()["shadow"]["compared"]:
            pass

    plant.converse(talk)


def test_a_new_champion_of_another_view_is_asked_by_its_own(plant: Plant) -> None:
    second = make_artifact(plant.backbone, "tiled", seed=9, view=VIEWS["cut"])
    digest = plant.store.publish("tiled", "9" * 64, second).digest

    async def talk(client: httpx.AsyncClient) -> None:
        first = await predict(client, "tiled", FIRST)
        assert first["version"] == 1
        described = (await client.get("/v1/tasks/tiled")).json()
        assert described["view"] == {"crop": None, "tiles": "2x2", "tile_overlap": 0.1, "fit": "squash"}
        plant.serve({"tiled": CatalogEntry(version=2, digest=digest)})
        found = await predict(client, "tiled", FIRST)
        assert found["version"] == 2
        assert found["probabilities"] == pytest.approx(plant.expected(second, FIRST), abs=CLOSE)

    plant.converse(talk)
