"""What the last backup named is not read again, but what was damaged then, or was written anew since, is."""

import hashlib
import json

import pytest

from orchestrator.backup.layout import read_manifest
from orchestrator.backup.restoring import restore_backup
from orchestrator.backup.soundness import verify_backup
from orchestrator.store.objects.protocol import StoredObject
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.backup.factory import (
    alter,
    find_key,
    make_place,
    make_world,
    shorten,
    spoil,
    take,
)
from tests.unit.orchestrator.registry.factory import MemoryObjects, World

NIGHT_S = 86400.0


class ReadObjects(MemoryObjects):
    """A store that keeps which objects were read."""

    def __init__(self, stored: dict[str, tuple[bytes, float]]) -> None:
        super().__init__(stored)
        self.read: list[str] = []

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self.read.append(key)
        return super().get(key, max_bytes=max_bytes)


def look_at_reads(world: World) -> ReadObjects:
    """The objects that backups read from now on."""
    world.objects = reader = ReadObjects(world.objects.stored)
    return reader


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("part", ["prompt.safetensors", "prompt.json", "rules/"])
def test_what_was_damaged_in_the_store_and_was_mended_there_is_copied_again(part: str, verify: bool) -> None:
    world, place = make_world(), make_place()
    rule = b'{"a": "rule"}'
    world.objects.put(f"rules/{hashlib.sha256(rule).hexdigest()}.json", rule)
    key = next(key for key in world.objects.stored if part in key)
    whole = world.objects.stored[key]
    spoil(world.objects, key, alter)
    first = take(world, place)
    assert [problem.partition(": ")[0] for problem in first.damage] == [key]
    assert take(world, place).damage == first.damage, "as long as it is damaged it is told"
    world.objects.stored[key] = whole

    mended = take(world, place, verify=verify)

    assert (mended.damage, mended.damaged_copies, mended.num_copied) == ((), (), 1)
    assert verify_backup(place, mended.manifest) == []
    assert take(world, place).num_copied == 0


def test_a_card_and_a_file_of_it_that_were_mended_are_copied_again() -> None:
    world, place = make_world(), make_place()
    parts = ("prompt.json", "prompt.safetensors", "README.md")
    keys = [next(key for key in world.objects.stored if part in key) for part in parts]
    whole = {key: world.objects.stored[key] for key in keys}
    for key in keys:
        world.objects.stored[key] = b"what is not so", 1.0
    take(world, place)
    world.objects.stored.update(whole)

    mended = take(world, place)

    assert (mended.damage, mended.num_copied) == ((), len(keys))
    restore_backup(place, read_manifest(place, mended.manifest.id), objects := MemoryObjects(), None)
    assert PromptStore(objects).fetch(keys[0].split("/")[1])


def test_a_sound_copy_is_not_replaced_by_what_is_damaged_in_the_store_later() -> None:
    world, place = make_world(), make_place()
    first = take(world, place).manifest
    spoil(world.objects, find_key(first, "prompt.safetensors"), alter)
    again = take(world, place)
    assert (again.damage, again.num_copied) == ((), 0)
    assert verify_backup(place, again.manifest) == []


def test_an_artifact_that_was_tuned_again_has_its_new_marker_in_the_backup() -> None:
    world, place = make_world(), make_place()
    marker = find_key(take(world, place).manifest, "published/")
    task, task_key = marker.removesuffix(".json").split("/")[1:]
    publication = world.store.published(task, task_key)
    assert publication is not None
    # As the message on a damaged artifact says.
    for key in [*world.objects.list(f"artifacts/{publication.digest}/"), marker]:
        world.objects.delete(key)
    tensors = b"other tensors"
    stamp = {"sha256": hashlib.sha256(tensors).hexdigest(), "bytes": len(tensors)}
    card = json.dumps({"files": {"prompt.safetensors": stamp}}).encode()
    anew = world.store.publish(task, task_key, {"prompt.json": card, "prompt.safetensors": tensors})

    again = take(world, place)

    assert again.damage == ()
    restore_backup(place, again.manifest, objects := MemoryObjects(), None)
    restored = PromptStore(objects).published(task, task_key)
    assert restored is not None
    assert restored.digest == anew.digest != publication.digest
    assert PromptStore(objects).fetch(restored.digest)


def test_nothing_large_is_read_again_while_all_is_well() -> None:
    world, place = make_world(), make_place()
    world.objects.put("backbones/0123/model.safetensors", b"weights")
    world.now_s += NIGHT_S
    take(world, place)
    reader = look_at_reads(world)
    assert take(world, place).damage == ()
    assert [key for key in reader.read if key.startswith(("artifacts/", "rules/", "backbones/"))] == []
    assert any(key.startswith("published/") for key in reader.read)


@pytest.mark.parametrize("is_shorter", [False, True])
def test_a_backbone_that_was_pushed_again_is_copied_again(is_shorter: bool) -> None:
    world, place = make_world(), make_place()
    key, weights = "backbones/0123/model.safetensors", b"weights"
    world.objects.put(key, shorten(weights) if is_shorter else alter(weights))
    world.now_s += NIGHT_S
    take(world, place)
    world.now_s += NIGHT_S
    # One that was cut off is found by its size, also where its time was kept.
    world.objects.stored[key] = weights, 1.0 if is_shorter else world.now_s
    world.now_s += NIGHT_S

    again = take(world, place).manifest

    restore_backup(place, again, objects := MemoryObjects(), None)
    assert objects.stored[key][0] == weights
    reader = look_at_reads(world)
    take(world, place)
    assert key not in reader.read
