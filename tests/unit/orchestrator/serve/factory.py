"""Prompts of random values as artifacts, pictures as files, and an engine that needs no model."""

import asyncio
import io
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage

from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.engine_api import (
    ALL_TASKS,
    Answer,
    Ask,
    Because,
    Explanation,
    Image,
    Readiness,
    Refusal,
    ResidencyStats,
    ServingState,
    TaskPage,
)
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.residency.served import ServedVersion
from orchestrator.serve.residency.task_names import TaskNames
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.tracing import Tracer
from ship.artifact.card import CARD, README, RECORD, TENSORS, PromptCard, backbone_entry
from ship.artifact.files import describe_files, digest_of, prompt_to_bytes, run_probe
from ship.backbone import Backbone
from ship.backbone_info import BackboneInfo
from ship.method.prompts import Prompt
from ship.runtime.baking import bake
from ship.runtime.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.settings.view import DEFAULT_VIEW, View


def make_prompt(backbone: Backbone, num_classes: int, seed: int, num_tiles: int = 1) -> Prompt:
    """Random values; the published start, so that prompts count from the first step on."""
    config = TuneConfig(num_independent=3, num_shared=2, num_attribute=2, num_prototypes=8, start="published")
    generator = torch.Generator().manual_seed(seed)
    prompt = Prompt(
        config,
        level_starts=(0, 2),
        depth=backbone.info.depth,
        prototypes_RD=torch.randn(8, backbone.info.width, generator=generator),
        num_classes=num_classes,
        num_tiles=num_tiles,
    )
    prompt.initialise(generator)
    # A head of this size tells images and versions apart.
    prompt.head.weight.data.mul_(10.0)
    return prompt.requires_grad_(False)


def make_labels(task: str, num_classes: int, seed: int) -> tuple[str, ...]:
    """Labels that tell the version, so that a mixed answer would show."""
    return tuple(f"{task}-{seed}-{number}" for number in range(num_classes))


def make_artifact(
    backbone: Backbone,
    task: str,
    num_classes: int = 3,
    seed: int = 0,
    prompt: Prompt | None = None,
    view: View = DEFAULT_VIEW,
) -> dict[str, bytes]:
    """All files of an artifact that passes every check; of a small prompt unless one is given."""
    prompt = prompt or make_prompt(backbone, num_classes, seed, view.num_tiles)
    files = {TENSORS: prompt_to_bytes(prompt), RECORD: b"{}", README: f"# {task}\n".encode()}
    card = PromptCard(
        task=task,
        task_key=f"{seed:064x}",
        backbone=backbone_entry(backbone.info),
        config=prompt.config,
        level_starts=prompt.level_starts,
        view=view,
        labels=make_labels(task, prompt.num_classes, seed),
        metrics={"accuracy": 0.5},
        data_fingerprint="0" * 64,
        probe={"image": "lattice-1", "logits": run_probe(backbone, bake(backbone, prompt))},
        files=describe_files(files),
    )
    return {**files, CARD: card.to_json()}


def make_served(
    runtime: Runtime, task: str, version: int = 1, num_classes: int = 3, seed: int = 0
) -> ServedVersion:
    """A task as the loader would make it."""
    backbone = runtime.backbone
    return ServedVersion(
        task=task,
        version=version,
        digest=digest_of(make_artifact(backbone, task, num_classes, seed)),
        labels=make_labels(task, num_classes, seed),
        slot=runtime.insert(make_prompt(backbone, num_classes, seed)),
    )


def draw_png(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """A file of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


BOLTS = ServingState(
    task="bolts",
    version=2,
    digest="d" * 64,
    labels=("good", "bad"),
    wanted_version=3,
    wanted_digest="e" * 64,
    wanted_rule="f" * 64,
    problem="prompt.json: it was changed",
    canary=Canary(version=4, share=0.05),
    shadow_version=5,
    others=(4, 5),
)


@dataclass
class Handle:
    """Handle of a deployment, as Ray Serve gives it: ``handle.method.remote(...)``."""

    replica: Any

    def __getattr__(self, name: str) -> Any:
        return Remote(getattr(self.replica, name))

    def broadcast(self, name: str, *args: Any) -> "Broadcast":
        return Broadcast([getattr(self.replica, name)(*args)])


@dataclass
class Broadcast:
    """A call to all replicas."""

    calls: list[Any]

    async def results_async(self, **how: object) -> list[Any]:
        return await asyncio.gather(*self.calls, return_exceptions=True)


@dataclass
class Remote:
    """A method of a deployment."""

    method: Callable[..., Coroutine[Any, Any, Any]]

    def remote(self, *args: Any) -> "asyncio.Task[Any]":
        return asyncio.ensure_future(self.method(*args))


@dataclass
class LoadedBackbone:
    """A ``BackboneSource`` whose backbone is here already."""

    backbone: Backbone

    def load(self) -> Backbone:
        return self.backbone


@dataclass
class FakeEngine:
    """Serves version 2 of the task ``bolts``, or raises or refuses what it is told to.

    Of ``nuts`` it knows nothing; it takes ``takes_s`` seconds, and keeps what it was asked.
    """

    error: Exception | None = None
    refusal: Refusal | None = None
    takes_s: float = 0.0
    waits: bool = False
    state: ServingState = field(default_factory=lambda: BOLTS)
    more: dict[str, ServingState] = field(default_factory=dict)
    asked: list[tuple[Image, str, int | None]] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    patience_s: list[float] = field(default_factory=list)
    num_images: list[int] = field(default_factory=list)
    idle: dict[str, Refusal] = field(default_factory=dict)
    digests: Iterator[str] = field(default_factory=lambda: repeat("d"))
    decision: str = "bad"
    because: Because | None = None
    rules: Iterator[str | None] = field(default_factory=lambda: repeat(None))
    of_backbone: str = ""
    info: BackboneInfo | None = None
    num_broken: int = 0
    catalog_age_s: float = 0.5
    num_problems: int = 0

    async def backbone(self) -> BackboneInfo:
        assert self.info is not None
        return self.info

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        self._raise()
        self.waits = True
        await asyncio.sleep(self.takes_s)
        self.asks += asks
        self.patience_s.append(patience_s)
        self.num_images.append(len(images))
        return [self._answer(images[ask.image], ask) for ask in asks]

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        self._raise()
        await asyncio.sleep(self.takes_s)
        self.asks.append(ask)
        if self.refusal is not None:
            return self.refusal
        prompted_TYX = np.full((1, 2, 2), 0.25, dtype=np.float32)
        return Explanation(
            task=ask.task,
            version=2,
            digest="d" * 64,
            prompted_TYX=prompted_TYX,
            bare_TYX=np.eye(2, dtype=np.float32)[None] / 2,
            entropy=1.0,
            bare_entropy=0.5,
            distance=0.5,
        )

    def _answer(self, image_3HW: Image, ask: Ask) -> Answer | Refusal:
        self.asked.append((image_3HW, ask.task, ask.version))
        if self.refusal is not None:
            return self.refusal
        if ask.task == "nuts":
            return Refusal(reason="unknown_task", detail="task 'nuts' is not in the catalog")
        return Answer(
            task=ask.task,
            version=2,
            digest=next(self.digests) * 64,
            probabilities=(("bad", 0.75), ("good", 0.25)),
            decision=self.decision,
            because=self.because,
            rule=next(self.rules),
            backbone=self.of_backbone,
            batch_rows=3,
            batch_tasks=2,
        )

    async def tasks(self, page: TaskPage = ALL_TASKS) -> list[ServingState]:
        self._raise()
        named = sorted({self.state.task: self.state, **self.more}.items())
        names = TaskNames(dict(named)).behind(page.patterns, page.after)
        return [dict(named)[name] for name in names[: page.limit]]

    async def task(self, name: str) -> ServingState | Refusal | None:
        self._raise()
        return self.idle.get(name) or (self.state if name == "bolts" else None)

    async def stats(self) -> list[ResidencyStats]:
        self._raise()
        return [self.held]

    @property
    def held(self) -> ResidencyStats:
        return ResidencyStats(
            replica="a",
            num_loads=7,
            num_load_failures=1,
            num_evictions=2,
            num_swaps=3,
            num_catalog_tasks=1,
            num_resident=4,
            resident_bytes=1000,
            catalog_age_s=0.5,
        )

    async def readiness(self) -> Readiness:
        self._raise()
        return Readiness(
            ready=self.refusal is None,
            detail="1 tasks are served",
            num_served=1,
            num_problems=self.num_problems,
            catalog_age_s=self.catalog_age_s,
            num_broken=self.num_broken,
        )

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


def make_replica(
    backbone: Backbone,
    folder: Path,
    precision: str = "float32",
    tracer: Tracer | None = None,
    slot_bytes: int = 16 << 20,
) -> EngineReplica:
    """An engine of ``bolts`` with two classes and ``nuts`` with three; its follower is to be stopped."""
    store = PromptStore(LocalObjects(folder))
    entries = {}
    for seed, task in enumerate(("bolts", "nuts"), start=1):
        artifact = make_artifact(backbone, task, num_classes=seed + 1, seed=seed)
        entries[task] = CatalogEntry(
            version=seed, digest=store.publish(task, f"{seed}" * 64, artifact).digest
        )
    store.write_catalog(Catalog(entries=entries), if_match=None)
    options = EngineOptions(slot_bytes=slot_bytes, precision=precision)
    return EngineReplica(LoadedBackbone(backbone), str(folder), 1, options, tracer=tracer)
