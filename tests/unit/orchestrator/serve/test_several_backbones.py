"""Tasks of two backbones at one endpoint, from a request to real replicas and back."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from orchestrator.serve.canary import choose_version, key_of_content
from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.ingress.engines import Engines
from orchestrator.serve.options import EngineOptions
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.backbone import Backbone, load_backbone
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from tests.factories import write_backbone
from tests.unit.orchestrator.serve.factory import Handle, LoadedBackbone, draw_png, make_artifact
from tests.unit.orchestrator.serve.residency.prompt_pool import PATIENCE_S

FIRST, SECOND = draw_png(1), draw_png(2)
# Where bfloat16 is fast it would be chosen, and answers would be told apart from the runtime's by its digits.
OPTIONS = EngineOptions(slot_bytes=16 << 20, precision="float32")
# Batches of other sizes sum in another order.
CLOSE = 1e-5
Talk = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Of another input size than ``backbone``."""
    folder = tmp_path_factory.mktemp("backbones") / "large"
    write_backbone(folder, seed=1, img_size=48)
    return load_backbone(str(folder))


class Plant:
    """Replicas of two backbones that follow one catalog, and ingresses that ask them.

    ``bolts`` is of the first backbone, ``nuts`` of the second one; each has a version 2 on the other one.
    """

    def __init__(self, small: Backbone, large: Backbone, folder: Path) -> None:
        self.backbones = {one.fingerprint: one for one in (small, large)}
        self.small, self.large = small.fingerprint, large.fingerprint
        self.store = PromptStore(LocalObjects(folder))
        self.artifacts = {
            ("bolts", 1): self._publish(small, "bolts", 1),
            ("nuts", 1): self._publish(large, "nuts", 2),
            ("bolts", 2): self._publish(large, "bolts", 3),
            ("nuts", 2): self._publish(small, "nuts", 4),
        }
        self._folder = folder
        self.replicas: dict[str, EngineReplica] = {}
        self.write(self.entries())

    def _publish(self, backbone: Backbone, task: str, seed: int) -> tuple[str, str, dict[str, bytes]]:
        files = make_artifact(backbone, task, seed=seed)
        return self.store.publish(task, f"{seed}" * 64, files).digest, backbone.fingerprint, files

    def entries(self, **versions: int) -> dict[str, CatalogEntry]:
        """Champions, version 1 unless they are named; the other version may be asked for by its number."""
        champions = {"bolts": 1, "nuts": 1} | versions
        return {
            task: CatalogEntry(
                version=version,
                digest=self.artifacts[task, version][0],
                others={3 - version: self.artifacts[task, 3 - version][0]},
            )
            for task, version in champions.items()
        }

    def write(self, entries: dict[str, CatalogEntry], *, tells: bool = True) -> None:
        """Write a catalog, with backbones or, as earlier versions did, without."""
        found = self.store.read_catalog()
        known = {digest: backbone for digest, backbone, _ in self.artifacts.values()}
        catalog = Catalog(entries=entries)
        self.store.write_catalog(
            catalog.with_backbones(known.get) if tells else catalog, if_match=found and found[1]
        )

    def start(self) -> None:
        for fingerprint, backbone in self.backbones.items():
            self.replicas[fingerprint] = EngineReplica(
                LoadedBackbone(backbone), str(self._folder), 1, OPTIONS, is_alone=False
            )
            self.loaded(fingerprint)

    def follow(self, *backbones: str) -> None:
        """Let replicas look at the catalog; by default all."""
        for backbone in backbones or tuple(self.replicas):
            self.replicas[backbone]._follower.step()
            self.loaded(backbone)

    def loaded(self, backbone: str) -> None:
        assert self.replicas[backbone]._residency.wait_loaded(PATIENCE_S)

    def converse(self, *talks: Talk) -> None:
        """All requests in one event loop; each talk is with an ingress of its own."""

        async def run() -> None:
            infos = {fingerprint: one.info for fingerprint, one in self.backbones.items()}
            for talk in talks:
                clients = {key: RayEngine(Handle(one), 30.0) for key, one in self.replicas.items()}
                app = make_app(Engines(clients, infos), list(infos.values()))
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
                    await talk(client)

        asyncio.run(run())

    def expected(self, task: str, version: int, content: bytes) -> dict[str, float]:
        """Probabilities by the artifact itself, without an endpoint."""
        _, fingerprint, files = self.artifacts[task, version]
        backbone, loaded = self.backbones[fingerprint], load_files(files)
        runtime = Runtime(backbone, capacity_bytes=16 << 20)
        image = decode_image(content, size=backbone.image_size, interpolation=backbone.interpolation)
        [logits_C] = runtime.infer(image[None], [runtime.insert(loaded.prompt)])
        return dict(zip(loaded.card.labels, torch.softmax(logits_C.double(), dim=0).tolist(), strict=True))

    def assert_answer(self, answer: dict[str, Any], version: int, content: bytes = FIRST) -> None:
        """Check that an answer is that of a version, seen at the size of its backbone."""
        task = answer["task"]
        digest, fingerprint, _ = self.artifacts[task, version]
        assert (answer["version"], answer["digest"], answer["backbone"]) == (version, digest, fingerprint)
        assert answer["probabilities"] == pytest.approx(self.expected(task, version, content), abs=CLOSE)


@pytest.fixture
def plant(backbone: Backbone, large: Backbone, tmp_path: Path) -> Plant:
    plant = Plant(backbone, large, tmp_path)
    plant.start()
    # Looks are made by the tests.
    for replica in plant.replicas.values():
        replica._follower.stop()
        replica._follower._thread.join()
    return plant


async def predict(
    client: httpx.AsyncClient, task: str, content: bytes = FIRST, **headers: str
) -> dict[str, Any]:
    reply = await client.post("/v1/predict", content=content, headers={"Ship-Task": task, **headers})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    assert reply.headers["Ship-Backbone"] == found["backbone"]
    return found


@pytest.mark.parametrize("tells", [True, False], ids=["schema 6", "earlier"])
def test_one_header_suffices(plant: Plant, tells: bool) -> None:
    """Also with a catalog that names no backbones: the artifact does."""
    plant.write(plant.entries(), tells=tells)
    plant.follow()

    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            for task in ("bolts", "nuts"):
                plant.assert_answer(await predict(client, task), 1)
        for task in ("bolts", "nuts"):
            plant.assert_answer(await predict(client, task, **{"Ship-Version": "2"}), 2)

    plant.converse(talk)


def test_each_engine_holds_the_prompts_of_its_backbone_alone(plant: Plant) -> None:
    plant.follow()
    held = [replica._residency.stats() for replica in plant.replicas.values()]
    assert [(stats.num_resident, stats.num_load_failures) for stats in held] == [(1, 0), (1, 0)]
    assert [replica._residency.num_served for replica in plant.replicas.values()] == [1, 1]


def test_a_batch_is_answered_by_both(plant: Plant) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        asked = [(image, task) for image in ("first", "second") for task in ("bolts", "nuts", "caps")]
        document = json.dumps({"items": [{"image": image, "task": task} for image, task in asked]})
        parts = {"request": (None, document, "application/json"), "first": FIRST, "second": SECOND}
        reply = await client.post("/v1/predict:batch", files=parts)
        for (image, task), answer in zip(asked, reply.json()["items"], strict=True):
            if task == "caps":
                assert answer["error"]["status"] == 404
            else:
                plant.assert_answer(answer, 1, {"first": FIRST, "second": SECOND}[image])
        assert reply.headers["Ship-Backbone"] == f"{plant.small}, {plant.large}"

    plant.converse(talk)


def test_tasks_are_listed_once_with_their_backbones(plant: Plant) -> None:
    plant.write(plant.entries() | {"caps": CatalogEntry(version=1, digest="c" * 64)})
    plant.follow()

    async def talk(client: httpx.AsyncClient) -> None:
        listed = (await client.get("/v1/tasks")).json()
        rows = {row["task"]: (row["version"], row["backbone"]) for row in listed["tasks"]}
        assert [row["task"] for row in listed["tasks"]] == ["bolts", "caps", "nuts"]
        assert (rows["bolts"], rows["nuts"]) == ((1, plant.small), (1, plant.large))
        assert [one["fingerprint"] for one in listed["backbones"]] == [plant.small, plant.large]
        pages = []
        cursor = ""
        while cursor is not None:
            page = (await client.get("/v1/tasks", params={"limit": 1, "cursor": cursor})).json()
            pages += [row["task"] for row in page["tasks"]]
            cursor = page["next_cursor"]
        assert pages == ["bolts", "caps", "nuts"]
        for task, fingerprint in (("bolts", plant.small), ("nuts", plant.large)):
            reply = await client.get(f"/v1/tasks/{task}")
            assert (reply.json()["version"], reply.json()["backbone"]["fingerprint"]) == (1, fingerprint)
            assert reply.headers["Ship-Backbone"] == fingerprint

    plant.converse(talk)


def test_the_other_routes_know_both_too(plant: Plant) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for task, size in (("bolts", 32), ("nuts", 48)):
            model = (await client.get(f"/v2/models/{task}")).json()
            assert model["inputs"][0]["shape"] == [-1, 3, size, size]
            assert (await client.get(f"/v2/models/{task}/ready")).status_code == 200
            pixels = decode_image(FIRST, size=(size, size), interpolation="bicubic").tolist()
            for data in ([base64.b64encode(FIRST).decode()], [pixels]):
                is_file = isinstance(data[0], str)
                shape, datatype = ([1], "BYTES") if is_file else ([1, 3, size, size], "UINT8")
                tensor = {"name": "image", "datatype": datatype, "shape": shape, "data": data}
                reply = await client.post(f"/v2/models/{task}/infer", json={"inputs": [tensor]})
                assert reply.status_code == 200, reply.text
                assert reply.json()["parameters"]["digest"] == plant.artifacts[task, 1][0]
            for accepted in ("application/json", "image/png"):
                headers = {"Ship-Task": task, "Accept": accepted}
                reply = await client.post("/v1/explain", content=FIRST, headers=headers)
                assert reply.status_code == 200, reply.text
                assert reply.headers["Ship-Backbone"] == plant.artifacts[task, 1][1]
                if accepted == "application/json":
                    assert len(reply.json()["attention"]) == size // 8
        ready = (await client.get("/readyz")).json()
        assert (ready["num_served"], ready["ready"]) == (2, True)
        page = (await client.get("/metrics")).text
        assert 'backbone="small"' in page
        assert 'backbone="large"' in page

    plant.converse(talk)


def test_readiness_says_which_backbone_is_not_ready(plant: Plant) -> None:
    plant.replicas[plant.large]._follower._synced.clear()

    async def talk(client: httpx.AsyncClient) -> None:
        reply = await client.get("/readyz")
        assert reply.status_code == 503
        assert reply.json()["detail"].startswith("large: ")

    plant.converse(talk)


@pytest.mark.parametrize("first", ["old", "new", "both"])
def test_a_promotion_to_another_backbone_is_followed_without_a_failed_request(
    plant: Plant, first: str
) -> None:
    """Whichever engine reads the catalog first; until both have, the version before may answer."""

    async def talk(client: httpx.AsyncClient) -> None:
        plant.assert_answer(await predict(client, "bolts"), 1)
        plant.write(plant.entries(bolts=2))
        if first != "both":
            plant.follow(plant.small if first == "old" else plant.large)
            answer = await predict(client, "bolts")
            plant.assert_answer(answer, answer["version"])
        plant.follow()
        for _ in range(2):
            plant.assert_answer(await predict(client, "bolts"), 2)
        plant.assert_answer(await predict(client, "nuts"), 1)
        plant.write(plant.entries())
        plant.follow(plant.large)
        answer = await predict(client, "bolts")
        plant.assert_answer(answer, answer["version"])
        plant.follow()
        plant.assert_answer(await predict(client, "bolts"), 1)

    plant.converse(talk)


def test_a_version_that_its_backbone_cannot_load_leaves_the_one_before(plant: Plant) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        plant.assert_answer(await predict(client, "bolts"), 1)
        digest = plant.artifacts["bolts", 2][0]
        for path in plant._folder.glob(f"**/{digest}/prompt.safetensors"):
            path.write_bytes(b"damaged")
        plant.write(plant.entries(bolts=2))
        plant.follow()
        for _ in range(2):
            plant.assert_answer(await predict(client, "bolts"), 1)
        state = (await client.get("/v1/tasks/bolts")).json()
        assert state["wanted_version"] == 2
        assert "prompt.safetensors" in state["problem"]

    plant.converse(talk)


def test_a_canary_of_another_backbone_gets_the_same_images_at_every_ingress(plant: Plant) -> None:
    """An ingress that has known the task for long, and one that starts while the canary runs."""
    bolts = plant.entries()["bolts"]
    canary = CatalogEntry(
        version=1, digest=bolts.digest, others=bolts.others, canary=Canary(version=2, share=0.5)
    )
    contents = [draw_png(seed) for seed in range(8)]
    seen: list[list[int]] = []

    async def ask_all(client: httpx.AsyncClient) -> None:
        answers = [await predict(client, "bolts", content) for content in contents]
        for answer, content in zip(answers, contents, strict=True):
            plant.assert_answer(answer, answer["version"], content)
        seen.append([answer["version"] for answer in answers])
        for key in ("a", "b", "c", "d"):
            answer = await predict(client, "bolts", **{"Ship-Key": key})
            plant.assert_answer(answer, choose_version("bolts", canary, key))

    async def known_for_long(client: httpx.AsyncClient) -> None:
        await predict(client, "bolts")
        plant.write(plant.entries() | {"bolts": canary})
        plant.follow()
        await ask_all(client)

    plant.converse(known_for_long, ask_all)
    expected = [choose_version("bolts", canary, key_of_content(content)) for content in contents]
    assert seen == [expected, expected]
    assert set(expected) == {1, 2}


def test_a_backbone_that_is_not_served_is_refused_by_name(plant: Plant) -> None:
    caps = CatalogEntry(version=1, digest="c" * 64)
    plant.artifacts["caps", 1] = ("c" * 64, "f" * 64, {})
    plant.write(plant.entries() | {"caps": caps})
    plant.follow()

    async def talk(client: httpx.AsyncClient) -> None:
        reply = await client.post("/v1/predict", content=FIRST, headers={"Ship-Task": "caps"})
        assert reply.status_code == 503
        state = (await client.get("/v1/tasks/caps")).json()
        for text in (reply.json()["detail"], state["problem"]):
            for part in ("version 1 of task 'caps'", "f" * 12, "'small'", "'large'"):
                assert part in text
        reply = await client.get("/v2/models/caps")
        assert reply.status_code == 200
        assert (await client.get("/v2/models/caps/ready")).status_code == 503

    plant.converse(talk)
