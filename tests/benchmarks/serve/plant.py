"""An endpoint to measure, with random prompts and a store and a registry in a temporary folder.

It knows the labels and the digest of each version, and so detects a mixed reply.
"""

import io
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from ray import serve

from orchestrator.registry.registry import Registry
from orchestrator.registry.versions import CHAMPION
from orchestrator.serve.launch.endpoint import Endpoint, start
from orchestrator.serve.options import EngineOptions, Limits, ServeOptions
from orchestrator.serve.scale import Scale
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import PromptCard
from ship.backbone import Backbone
from tests.benchmarks.synthetic import default_k, find_backbone, make_prompt
from tests.unit.orchestrator.serve.factory import make_artifact

__all__ = [
    "ServePlant",
    "draw_jpeg",
    "open_plant",
    "replica_pids",
    "resident_bytes",
    "wait_for_replicas",
]

ENGINE = "ServeReplica:ship:Engine"


@dataclass
class ServePlant:
    """An endpoint with its store and registry.

    Attributes:
        name: Name of the backbone, for ``find_backbone``.
        backbone: Backbone of the endpoint.
        settings: Locations of store and registry.
        adapters: Settings of the random prompts, in place of those of ``make_prompt``.
        tasks: Names of the tasks.
        endpoint: The running endpoint; None before its start.
    """

    name: str
    backbone: Backbone
    settings: Settings
    adapters: Mapping[str, object] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    endpoint: Endpoint | None = None
    _versions: dict[tuple[str, int], tuple[str, frozenset[str]]] = field(default_factory=dict)

    @property
    def store(self) -> PromptStore:
        """The store of prompts."""
        return PromptStore(open_objects(self.settings.store))

    @property
    def url(self) -> str:
        """URL of the endpoint."""
        assert self.endpoint is not None
        return self.endpoint.url

    def add_tasks(self, num_tasks: int) -> None:
        """Publish and register that many tasks, each with a champion."""
        registry = Registry(self.settings.tracking_uri, may_create=True)
        for number in range(num_tasks):
            task = f"line-{number:04d}"
            version = self.add_version(registry, task, seed=number)
            # As a person does in MLflow: the poller takes it in, and no rollout is written for each.
            registry.set_alias(task, CHAMPION, version)
            self.tasks.append(task)

    def add_version(self, registry: Registry, task: str, seed: int, num_classes: int = 4) -> int:
        """Publish a random prompt as the next version of a task."""
        prompt = make_prompt(self.backbone, seed, default_k(self.name), num_classes, **self.adapters)
        prompt.requires_grad_(False)
        files = make_artifact(self.backbone, task, seed=seed, prompt=prompt)
        published = self.store.publish(task, f"{seed:064x}", files)
        found = registry.register(
            task,
            digest=published.digest,
            source=published.uri,
            run_id=None,
            metrics={},
            tags={},
        )
        labels = PromptCard.from_json(files["prompt.json"]).labels
        self._versions[task, found.version] = published.digest, frozenset(labels)
        return found.version

    def is_whole(self, reply: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
        """Consistency of labels, version and digest of a reply, in the body and in the headers."""
        digest, labels = self._versions.get((reply["task"], reply["version"]), ("", frozenset()))
        return (
            reply["digest"] == digest
            and set(reply["probabilities"]) == labels
            and headers.get("Ship-Task") == reply["task"]
            and headers.get("Ship-Version") == str(reply["version"])
            and headers.get("Ship-Digest") == digest
        )


@contextmanager
def open_plant(
    name: str,
    num_tasks: int,
    *,
    num_replicas: int = 1,
    num_ingresses: int | None = 1,
    options: EngineOptions | None = None,
    limits: Limits | None = None,
    settings: Settings | None = None,
) -> Iterator[ServePlant]:
    """A running endpoint for the block, by default on a temporary folder; engines inside for no ingresses."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ship-serve-")))
        # Prompts are the same each time: the machine's own cache would have them already.
        environment = {"SHIP_CACHE": str(folder / "cache")}
        settings = settings or Settings.from_env(environment, home=str(folder / "home"))
        plant = ServePlant(name=name, backbone=find_backbone(name, torch.device("cpu")), settings=settings)
        plant.add_tasks(num_tasks)
        serve_options = ServeOptions(
            port=0,
            name="ship",
            # On loopback; the check of a token takes microseconds and is not measured.
            auth=False,
            engines=Scale(least=num_replicas, most=num_replicas),
            ingresses="inside" if num_ingresses is None else Scale(least=num_ingresses, most=num_ingresses),
            backbones=(str(_save(plant.backbone, folder / "backbone")),),
            num_cpus_per_replica=_threads(num_replicas),
            engine=options or EngineOptions(),
            limits=limits or Limits(),
        )
        plant.endpoint = stack.enter_context(start(settings, serve_options))
        yield plant


def draw_jpeg(seed: int, size: tuple[int, int] = (640, 480)) -> bytes:
    """A picture with soft shapes and some grain, as a JPEG of about 40 KB; ``size`` is width and height."""
    chance = np.random.default_rng(seed)
    shapes = Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size)
    grain = chance.normal(0.0, 4.0, (size[1], size[0], 1))
    pixels = (np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def _save(backbone: Backbone, folder: Path) -> Path:
    """Weights that were drawn in this process, for the engines."""
    folder.mkdir()
    backbone.save(folder)
    return folder


def _threads(num_replicas: int) -> int:
    return max(1, (os.cpu_count() or 1) // num_replicas)


def replica_pids(part: str = ENGINE) -> list[int]:
    """Processes below this one, by the title that Ray gives them, such as ``ServeReplica:ship:Engine``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        # It may end meanwhile.
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith("ray::") and part in title:
                found.append(process.pid)
    return sorted(found)


def resident_bytes(pids: list[int]) -> int:
    """Resident memory of the processes; a shared page counts once for each of them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) << 10
    return total


def wait_for_replicas(num_replicas: int, timeout_s: float, gone: int, deployment: str = "Engine") -> float:
    """Seconds until that many replicas answer and ``gone`` is none of them.

    Raises:
        TimeoutError: There are fewer after ``timeout_s``.
    """
    start_s = time.monotonic()
    while time.monotonic() - start_s < timeout_s:
        # A process exists before its replica knows its tasks, and Serve learns late of a dead one.
        states = serve.status().applications["ship"].deployments[deployment].replica_states
        pids = replica_pids(f"ServeReplica:ship:{deployment}")
        if gone not in pids and len(pids) >= num_replicas and states.get("RUNNING", 0) >= num_replicas:
            return time.monotonic() - start_s
        time.sleep(0.2)
    raise TimeoutError(
        f"{deployment}: expected {num_replicas} after {timeout_s:.0f} s, found {states}, {pids}"
    )
