"""An endpoint with what it serves, and what its answers have to be."""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
import torch

from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.settings import Settings
from orchestrator.store.documents.token_changes import change_tokens, create_token
from orchestrator.store.documents.tokens import Scope
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.backbone import Backbone, load_backbone
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from tests.factories import write_backbone
from tests.unit.orchestrator.serve.factory import make_artifact

with warnings.catch_warnings():
    # Ray Serve's own pydantic models are written in a way that pydantic 2.14 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from orchestrator.serve.launch.endpoint import Endpoint, start
    from orchestrator.serve.options import EngineOptions, Limits, ServeOptions

__all__ = [
    "NUM_CLASSES",
    "PATIENCE_S",
    "ServedPlant",
    "ask",
    "make_token",
    "open_served_plant",
    "register",
    "write_and_load",
]

NUM_CLASSES = {"bolts": 2, "nuts": 3, "gears": 5}
# What must happen at some time, on a busy machine too. Nothing waits for as long when it works.
PATIENCE_S = 90.0


@dataclass
class ServedPlant:
    """An endpoint, what it serves, and what has to come out."""

    settings: Settings
    backbone: Backbone
    store: PromptStore
    registry: Registry
    token: str
    request_log: Path
    endpoint: Endpoint | None = None
    artifacts: dict[tuple[str, int], dict[str, bytes]] = field(default_factory=dict)

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.registry, self.store)

    def register(self, task: str, seed: int, backbone: Backbone | None = None) -> int:
        files = make_artifact(backbone or self.backbone, task, NUM_CLASSES.get(task, 2), seed)
        version = register(self.store, self.registry, task, seed, files)
        self.artifacts[task, version] = files
        return version

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.endpoint.url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def expected(self, task: str, version: int, png: bytes, temperature: float = 1.0) -> dict[str, float]:
        """Label to probability, by the runtime in this process."""
        loaded = load_files(self.artifacts[task, version])
        size, interpolation = self.backbone.image_size, self.backbone.interpolation
        image_3HW = decode_image(png, size=size, interpolation=interpolation)
        runtime = Runtime(self.backbone)
        (logits_C,) = runtime.infer(image_3HW[None], [runtime.insert(loaded.prompt)])
        shares = torch.softmax(logits_C.double() / temperature, 0).tolist()
        return dict(zip(loaded.card.labels, shares, strict=True))

    def check(self, reply: httpx.Response, task: str, png: bytes) -> int:
        """Check that one version answered, in all of label, probabilities and headers; returns which."""
        assert reply.status_code == 200, reply.text
        answer, headers = reply.json(), reply.headers
        version = answer["version"]
        expected = self.expected(task, version, png)
        # float32 adds in another order in another batch.
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert answer["label"] == next(iter(answer["probabilities"]))
        assert headers["ship-task"] == answer["task"] == task
        assert headers["ship-version"] == str(version)
        assert headers["ship-digest"] == answer["digest"] == load_files(self.artifacts[task, version]).digest
        assert headers["ship-backbone"] == self.backbone.fingerprint
        return version


@contextmanager
def open_served_plant(folder: Path, limits: Limits) -> Iterator[ServedPlant]:
    """An endpoint of one engine in float32, with a champion of each task, and one of another backbone.

    Args:
        folder: Where all of it is.
        limits: Limits of the endpoint; its requests are logged besides.
    """
    settings = Settings.from_env({"SHIP_CACHE": str(folder / "cache")}, home=str(folder / "home"))
    store = PromptStore(open_objects(settings.store))
    plant = ServedPlant(
        settings=settings,
        backbone=write_and_load(folder / "backbone", seed=0),
        store=store,
        token=make_token(store, "plant", Scope(predict=("*",), metrics=True)),
        registry=Registry(settings.tracking_uri, may_create=True),
        request_log=folder / "requests.jsonl",
    )
    for seed, task in enumerate(NUM_CLASSES):
        plant.rollouts.promote(task, plant.register(task, seed))
    foreign = plant.register("foreign", 50, write_and_load(folder / "other", seed=1))
    plant.rollouts.promote("foreign", foreign)
    options = ServeOptions(
        port=0,
        name="ship",
        backbones=(str(folder / "backbone"),),
        limits=replace(limits, request_log=str(plant.request_log)),
        # Answers are compared with those of a runtime in float32.
        engine=EngineOptions(precision="float32"),
    )
    with start(settings, options) as plant.endpoint:
        yield plant


def register(
    store: PromptStore,
    registry: Registry,
    task: str,
    seed: int,
    files: dict[str, bytes],
    tags: Mapping[str, str] | None = None,
) -> int:
    """Publish an artifact and register it; returns the version."""
    published = store.publish(task, f"{seed:064x}", files)
    return registry.register(
        task, digest=published.digest, source=published.uri, run_id=None, metrics={}, tags=dict(tags or {})
    ).version


def make_token(store: PromptStore, name: str, scope: Scope) -> str:
    return change_tokens(store, lambda tokens: create_token(tokens, name, scope, now_s=time.time())).text


def write_and_load(folder: Path, seed: int) -> Backbone:
    write_backbone(folder, seed=seed)
    return load_backbone(str(folder))


def ask(client: httpx.Client, task: str, png: bytes) -> httpx.Response:
    headers = {"Ship-Task": task, "Content-Type": "image/png"}
    return client.post("/v1/predict", content=png, headers=headers)
