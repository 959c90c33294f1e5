"""Full backups and those of metadata alone share a place, and none takes another's place."""

import pytest

from orchestrator.backup.layout import find_backups, read_last, read_manifest
from orchestrator.backup.pruning import prune_backups
from orchestrator.backup.soundness import verify_backup
from orchestrator.errors import StoreError
from orchestrator.store.objects.protocol import StoredObject
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


def test_the_last_backup_is_a_full_one_where_there_is_one() -> None:
    world, place = make_world(), make_place()
    first = take_id(world, place, "metadata")
    second = take_id(world, place, "metadata")
    alone = read_last(place, clock=lambda: world.now_s)
    assert (alone.manifest.id, alone.newer) == (second, ())
    full, hours = take_day(world, place)
    last = read_last(place, clock=lambda: world.now_s)
    assert (last.manifest.id, last.newer) == (full, tuple(hours))
    assert read_manifest(place, clock=lambda: world.now_s).id == full
    assert read_manifest(place, first).kind == "metadata"


def test_a_damaged_manifest_that_may_be_the_last_full_one_is_passed_over_by_no_one() -> None:
    world, place = make_world(), make_place()
    _, hours = take_day(world, place)
    spoil(place, f"backups/{hours[-1]}/manifest.json", alter)
    with pytest.raises(StoreError, match=f"{hours[-1]}/manifest.json: it was damaged or changed"):
        read_last(place, clock=lambda: world.now_s)


def test_a_full_backup_after_one_of_metadata_reads_no_artifact_again() -> None:
    class Artifacts(MemoryObjects):
        """A store whose artifacts are not read."""

        def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
            assert not key.startswith("artifacts/"), key
            return super().get(key, max_bytes=max_bytes)

    world, place = make_world(), make_place()
    take_day(world, place)
    world.objects = Artifacts(world.objects.stored)
    assert read_manifest(place, take_id(world, place, "all")).kind == "all"
