"""Full backups and those of metadata alone share a place, and none takes another's place."""

import pytest

from orchestrator.backup.layout import find_backups, read_manifest
from orchestrator.backup.pruning import prune_backups
from orchestrator.backup.soundness import verify_backup
from orchestrator.errors import StoreError
from tests.unit.orchestrator.backup.factory import alter, make_place, make_world, spoil, take
from tests.unit.orchestrator.registry.factory import MemoryObjects, World


def take_id(world: World, place: MemoryObjects, kind: str) -> str:
    """The id of a backup that was taken an hour after the last one."""
    world.now_s += 3600.0
    return take(world, place, kind="metadata" if kind == "metadata" else "all").manifest.id


def take_day(world: World, place: MemoryObjects, hours: int = 4) -> tuple[str, list[str]]:
    """The ids of a full backup and of the hourly ones of metadata after it."""
    return take_id(world, place, "all"), [take_id(world, place, "metadata") for _ in range(hours)]


def prune(world: World, place: MemoryObjects, keep: int, taken: str | None = None) -> tuple[str, ...]:
    return prune_backups(place, keep, clock=lambda: world.now_s, taken=taken)


def test_each_kind_is_counted_for_itself() -> None:
    world, place = make_world(), make_place()
    days = [take_day(world, place) for _ in range(3)]
    (old, old_hours), (first, first_hours), (second, hours) = days

    removed = prune(world, place, 2, hours[-1])

    assert removed == (old, *old_hours, *first_hours, *hours[:-2])
    assert find_backups(place).done == (first, second, *hours[-2:])
    for id_ in find_backups(place).done:
        assert verify_backup(place, read_manifest(place, id_)) == []
    assert prune(world, place, 2) == ()


def test_hourly_backups_of_metadata_leave_the_only_full_one_and_its_contents() -> None:
    world, place = make_world(), make_place()
    full = take_id(world, place, "all")
    for _ in range(5):
        taken = take_id(world, place, "metadata")
        prune(world, place, 1, taken)
        assert find_backups(place).done == (full, taken)
    assert verify_backup(place, read_manifest(place, full)) == []


def test_a_backup_that_cannot_be_read_stays_while_it_may_be_one_of_the_last_full_ones() -> None:
    world, place = make_world(), make_place()
    full, hours = take_day(world, place)
    spoil(place, f"backups/{full}/manifest.json", alter)
    blobs = list(place.list("blobs/"))
    with pytest.raises(StoreError, match=rf"no content was removed.* delete memory://place/backups/{full}$"):
        prune(world, place, 1)
    assert find_backups(place).done == (full, hours[-1])
    assert list(place.list("blobs/")) == blobs
    later = take_id(world, place, "all")
    assert prune(world, place, 1, later) == (full,)
    assert find_backups(place).done == (hours[-1], later)
