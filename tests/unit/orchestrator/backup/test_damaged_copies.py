"""A copy that was damaged in the place of backups is written again, or told as what it is."""

import pytest

from orchestrator.backup.layout import blob_key
from orchestrator.backup.restoring import restore_backup
from orchestrator.backup.soundness import verify_backup
from orchestrator.errors import StoreError
from tests.unit.orchestrator.backup.factory import (
    alter,
    find_key,
    make_place,
    make_world,
    shorten,
    spoil,
    spoil_copy,
    take,
)
from tests.unit.orchestrator.registry.factory import MemoryObjects


@pytest.mark.parametrize("part", ["prompt.safetensors", "prompt.json", "published/", "rollouts/"])
def test_a_copy_of_another_size_is_written_again_and_told(part: str) -> None:
    world, place = make_world(), make_place()
    first = take(world, place).manifest
    key = find_key(first, part)
    spoil_copy(place, first, key, shorten)
    assert verify_backup(place, first)

    again = take(world, place)

    assert (again.rewritten, again.num_copied, again.damage, again.damaged_copies) == ((key,), 0, (), ())
    for manifest in (first, again.manifest):
        assert verify_backup(place, manifest) == []
    assert take(world, place).rewritten == ()


def test_a_copy_of_the_same_size_is_written_again_where_copies_are_read() -> None:
    world, place = make_world(), make_place()
    first = take(world, place).manifest
    key = find_key(first, "prompt.safetensors")
    spoil_copy(place, first, key, alter)
    assert first.registry is not None
    spoil(place, blob_key(first.registry.sha256), alter)
    assert take(world, place).rewritten == ()
    problems = verify_backup(place, first)
    assert [problem.partition(": ")[0] for problem in problems] == [key, "the copy of the registry"]
    assert all("`ship backup memory://place --verify` writes it again" in problem for problem in problems)
    with pytest.raises(
        StoreError, match=r"is damaged; `ship backup memory://place --verify` writes it again"
    ):
        restore_backup(place, first, MemoryObjects(), None)

    again = take(world, place, verify=True)

    assert again.rewritten == (key, "the copy of the registry")
    assert (again.num_copied, again.damage, again.damaged_copies) == (0, (), ())
    assert verify_backup(place, first) == []


@pytest.mark.parametrize("part", ["prompt.json", "published/"])
def test_a_damaged_copy_of_what_names_others_is_no_damage_of_the_store(part: str) -> None:
    world, place = make_world(), make_place()
    first = take(world, place).manifest
    key = find_key(first, part)
    spoil_copy(place, first, key, alter)

    again = take(world, place)

    assert (again.rewritten, again.damage, again.damaged_copies) == ((key,), (), ())
    assert verify_backup(place, again.manifest) == []


def test_a_copy_that_the_store_cannot_replace_is_told_of_the_place() -> None:
    world, place = make_world(), make_place()
    first = take(world, place).manifest
    key = find_key(first, "prompt.json")
    spoil_copy(place, first, key, alter)
    spoil(world.objects, key, shorten)

    again = take(world, place)

    assert (again.rewritten, again.damage) == ((), ())
    [problem] = again.damaged_copies
    assert problem.startswith(f"{key}: memory://place/blobs/{first.objects[key].sha256} is damaged")
    assert problem.endswith(f"not so now: the store has another content as {key} now")
    # Copies are read, so that the store's own content is found.
    assert take(world, place, verify=True).damage == (f"{key}: it is not what its name says",)
