"""A store with a task that serves, a place for its backups, and damage of both."""

from collections.abc import Callable

from orchestrator.backup.layout import Kind, Manifest, blob_key
from orchestrator.backup.taking import Taken, take_backup
from orchestrator.registry.copying import RegistryCopy
from tests.unit.orchestrator.registry.factory import MemoryObjects, World

__all__ = [
    "COPY",
    "alter",
    "find_key",
    "make_place",
    "make_world",
    "shorten",
    "spoil",
    "spoil_copy",
    "take",
]

COPY = RegistryCopy(form="json", content=b"all of MLflow")


def make_world() -> World:
    world = World()
    world.add_tuned(1)
    world.rollouts().promote("bolts", 1)
    return world


def take(world: World, place: MemoryObjects, *, kind: Kind = "all", verify: bool = False) -> Taken:
    world.now_s += 1.0
    return take_backup(
        world.objects, place, lambda: COPY, kind=kind, verify=verify, clock=lambda: world.now_s
    )


def find_key(manifest: Manifest, part: str) -> str:
    return next(key for key in manifest.objects if part in key)


def shorten(content: bytes) -> bytes:
    return content[: len(content) // 2]


def alter(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def spoil(objects: MemoryObjects, key: str, how: Callable[[bytes], bytes]) -> None:
    content, at_s = objects.stored[key]
    objects.stored[key] = how(content), at_s


def spoil_copy(place: MemoryObjects, manifest: Manifest, key: str, how: Callable[[bytes], bytes]) -> None:
    spoil(place, blob_key(manifest.objects[key].sha256), how)


def make_place() -> MemoryObjects:
    place = MemoryObjects()
    place.url = "memory://place"
    return place
