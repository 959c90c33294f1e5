"""Tasks in an MLflow in memory and a store in a folder."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.errors import ObjectMissing
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.registry.requests import Requests
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import FINGERPRINT_TAG, PUBLISHED_TAG
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.catalog import IdleTask
from orchestrator.store.objects.protocol import (
    ListedObject,
    ObjectStore,
    StoredObject,
    conflict,
    etag_of,
    too_large,
)
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import CARD, PromptCard
from ship.artifact.held_out import HELD_OUT, HeldOut
from ship.decision.rule import DecisionRule
from ship.settings.config import TuneConfig
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry
from tests.unit.orchestrator.store.factory import make_key

__all__ = [
    "LABELS",
    "NOW_S",
    "MemoryObjects",
    "Stopped",
    "World",
    "add_champions",
    "idle",
    "make_bolts",
    "make_catalog_writer",
    "served",
    "stop_at",
]

NOW_S = 1_800_000_000.0
LABELS = ("good", "scratch", "dent")


class MemoryObjects:
    """An ``ObjectStore`` in memory, whose reads and writes pass a hook before and after their effect.

    Args:
        stored: Content and time of each object; shared by the clients of one store.
    """

    url = "memory://store"

    def __init__(self, stored: dict[str, tuple[bytes, float]] | None = None) -> None:
        self.stored = {} if stored is None else stored
        self.hook: Callable[[str], None] = lambda when: None

    def client(self) -> "MemoryObjects":
        """The same store for another process."""
        return MemoryObjects(self.stored)

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self.hook("before")
        if key not in self.stored:
            raise ObjectMissing(key)
        data, _ = self.stored[key]
        if max_bytes is not None and len(data) > max_bytes:
            raise too_large(self.url, key, len(data), max_bytes)
        self.hook("after")
        return StoredObject(data=data, etag=etag_of(data))

    def get_unless(self, key: str, etag: str, *, max_bytes: int | None = None) -> StoredObject | None:
        found = self.get(key, max_bytes=max_bytes)
        return None if found.etag == etag else found

    def exists(self, key: str) -> bool:
        return key in self.stored

    def put_new(self, key: str, data: bytes) -> bool:
        self.hook("before")
        if key in self.stored:
            return False
        self._write(key, data)
        self.hook("after")
        return True

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        self.hook("before")
        if if_match is not None and (key not in self.stored or etag_of(self.stored[key][0]) != if_match):
            raise conflict(self.url, key)
        self._write(key, data)
        self.hook("after")
        return etag_of(data)

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.stored if key.startswith(prefix)))

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        for key in self.list(prefix):
            data, time_s = self.stored[key]
            yield ListedObject(key=key, num_bytes=len(data), modified_s=time_s)

    def leftovers(self) -> Iterator[ListedObject]:
        return iter(())

    def drop_leftover(self, key: str) -> None:
        raise AssertionError("there are none")

    def delete(self, key: str) -> None:
        self.stored.pop(key, None)

    def _write(self, key: str, data: bytes) -> None:
        newest_s = max((time_s for _, time_s in self.stored.values()), default=0.0)
        self.stored[key] = data, newest_s + 10.0


def make_decided(
    number: int,
    labels: tuple[str, ...],
    *,
    keeps_held_out: bool = True,
    paths: tuple[str, ...] = (),
    record: Mapping[str, Any] | None = None,
    held_out: HeldOut | None = None,
) -> dict[str, bytes]:
    """The files of an artifact with a rule of its own, and with answers about 600 held-out images, or others.

    Of each class every tenth picture looks like the next class. The first pictures have these paths.
    """
    files = {
        "prompt.safetensors": f"tensors {number}".encode(),
        "record.json": json.dumps(record or {}).encode(),
        "README.md": b"",
    }
    if keeps_held_out:
        held_out = held_out or _make_held_out(labels)
        files[HELD_OUT] = replace(held_out, paths=(*paths, *held_out.paths[len(paths) :])).to_json()
    card = PromptCard(
        task="bolts",
        task_key=make_key(f"tuned-{number}"),
        backbone={
            "name": "bundled",
            "fingerprint": make_key("backbone"),
            "image_size": [96, 96],
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        config=TuneConfig(),
        level_starts=(0, 2),
        labels=labels,
        metrics={"accuracy": 0.9, "probe_accuracy": 0.85},
        data_fingerprint=make_key("images"),
        probe={"image": "lattice-1", "logits": [0.0] * len(labels)},
        files={
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
        decision=DecisionRule(temperature=2.0 + number),
    )
    return {**files, CARD: card.to_json()}


def _make_held_out(labels: tuple[str, ...]) -> HeldOut:
    num, num_classes = 600, len(labels)
    labels_B = [place % num_classes for place in range(num)]
    logits_BC = []
    for place, label in enumerate(labels_B):
        number = place // num_classes
        likeliest = (label + (number % 10 == 0)) % num_classes
        lead = 1.0 + (number % 7) / 2
        logits_BC.append(tuple(lead if other == likeliest else 0.0 for other in range(num_classes)))
    return HeldOut(
        labels=labels,
        paths=tuple(f"{place}.png" for place in range(num)),
        digests=tuple(f"{place:032x}" for place in range(num)),
        labels_B=tuple(labels_B),
        logits_BC=tuple(logits_BC),
        distances_B=tuple(1.0 + place / 1000 for place in range(num)),
        num_images=num,
    )


class World:
    """A store and an MLflow, and clients of both that know nothing of one another.

    Args:
        objects: Objects of the store; by default in memory.
    """

    def __init__(self, objects: ObjectStore | None = None) -> None:
        self.objects = MemoryObjects()
        self.mlflow = FakeMlflow()
        self.now_s = NOW_S
        self.registry = make_registry(self.mlflow)
        self.store = PromptStore(objects or self.objects)

    def add_tuned(
        self,
        number: int = 1,
        *,
        labels: tuple[str, ...] = LABELS,
        keeps_held_out: bool = True,
        paths: tuple[str, ...] = (),
        record: Mapping[str, Any] | None = None,
        held_out: HeldOut | None = None,
    ) -> str:
        """Publish and register a version of the task bolts; returns the digest of its artifact."""
        files = make_decided(
            number, labels, keeps_held_out=keeps_held_out, paths=paths, record=record, held_out=held_out
        )
        digest = self.store.publish("bolts", make_key(f"tuned-{number}"), files).digest
        self.registry.register(
            "bolts",
            digest=digest,
            source=f"s3://artifacts/{number}",
            run_id=None,
            metrics={"accuracy": 0.9},
            tags={PUBLISHED_TAG: repr(NOW_S - 1000 + number)},
        )
        return digest

    def add(
        self,
        task: str = "bolts",
        number: int = 1,
        *,
        published_s: float | None = None,
        backbone: str | None = None,
    ) -> int:
        """Register a version of a task; returns its number."""
        published_s = NOW_S - 1000 + number if published_s is None else published_s
        return self.registry.register(
            task,
            digest=make_key(f"{task}-{number}"),
            source=f"s3://artifacts/{number}",
            run_id=None,
            metrics={"accuracy": 0.9},
            tags={PUBLISHED_TAG: repr(published_s)} | ({FINGERPRINT_TAG: backbone} if backbone else {}),
        ).version

    def rollouts(self, by: str = "anna", store: PromptStore | None = None) -> Rollouts:
        """The rollouts as a new process has them."""
        return Rollouts(
            make_registry(self.mlflow),
            store or PromptStore(self.objects.client()),
            Author(by=by, host="line-pc", reason=""),
            clock=lambda: self.now_s,
        )

    def requests(self, by: str = "anna", store: PromptStore | None = None) -> Requests:
        """The promotions that wait, as a new process has them."""
        return Requests(
            make_registry(self.mlflow),
            store or PromptStore(self.objects.client()),
            Author(by=by, host="line-pc", reason=""),
            clock=lambda: self.now_s,
        )

    def fresh_registry(self) -> Registry:
        """The registry as a new process has it."""
        return make_registry(self.mlflow)

    def aliases(self, task: str = "bolts") -> dict[str, int]:
        """Aliases in MLflow."""
        return {name: int(at) for name, at in self.mlflow.models[f"ship.{task}"].aliases.items()}

    def move_by_hand(self, alias: str, version: int, task: str = "bolts") -> None:
        """Move an alias as MLflow's own page does."""
        self.mlflow.models[f"ship.{task}"].aliases[alias] = str(version)


def make_bolts() -> World:
    """Three versions of bolts, the second of which serves in place of the first."""
    world = World()
    for number in (1, 2, 3):
        world.add(number=number)
    world.rollouts().promote("bolts", 1)
    world.rollouts().promote("bolts", 2)
    return world


class Stopped(BaseException):
    """The process is ended here."""


def stop_at(number: int) -> Callable[[str], None]:
    """Ends the process at that call."""
    calls = iter(range(10_000))

    def look(_: str) -> None:
        if next(calls) == number:
            raise Stopped

    return look


def make_catalog_writer(world: World) -> CatalogWriter:
    """Writer of the catalog as a new poller has it."""
    return CatalogWriter(
        world.fresh_registry(), PromptStore(world.objects.client()), world.rollouts(by="poller")
    )


def add_champions(world: World, *tasks: str) -> None:
    """Register and promote the first version of each task."""
    for task in tasks:
        world.rollouts().promote(task, world.add(task))


def served(world: World) -> dict[str, int]:
    """The version of each task that the catalog says is served."""
    found = world.store.read_catalog()
    assert found is not None
    return {task: entry.version for task, entry in found[0].entries.items()}


def idle(world: World) -> dict[str, IdleTask]:
    """The tasks without a champion in the catalog."""
    found = world.store.read_catalog()
    assert found is not None
    return dict(found[0].idle)
