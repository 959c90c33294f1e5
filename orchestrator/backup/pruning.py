"""Removal of old backups, and of contents that no other backup names."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.backup.layout import BLOBS, FOLDER, Kind, find_backups, find_misdated, read_manifest
from orchestrator.errors import StoreError
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["prune_backups"]

# A backup under way takes contents for held that were there when it began.
_MAX_UNDER_WAY_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What goes and what stays.

    Attributes:
        removed: Ids of backups that go, from the oldest on.
        named: Digests of the contents of those that stay.
        problem: Why a backup that stays cannot be read; None where all can.
    """

    removed: tuple[str, ...]
    named: set[str]
    problem: str | None


def prune_backups(
    place: ObjectStore, keep: int, clock: Callable[[], float] = time.time, *, taken: str | None = None
) -> tuple[str, ...]:
    """Remove all backups but the newest, what was left of unfinished ones, and contents that none names.

    Each kind counts for itself, so that many backups of metadata take no full one's place. Backups that are
    dated later than now neither count nor go: they may be older or newer than all others. While another
    backup is under way, no content goes; a later call removes it.

    Args:
        place: Store of backups.
        keep: Number of backups of each kind that stay, at least 1.
        clock: Current time, seconds since the epoch.
        taken: Id of the backup that was just taken, which stays whatever the clocks of others said.

    Returns:
        Ids of the backups that were removed.

    Raises:
        StoreError: The place failed, or a backup that stays is damaged; then no content goes.
    """
    found = find_backups(place)
    now_s = clock()
    old_s = now_s - _MAX_UNDER_WAY_S
    is_torn = {id_: _begun_s(place, id_) < old_s for id_ in found.unfinished}
    chosen = _choose(place, found.done, keep, spared={*find_misdated(found.done, now_s)}, taken=taken)
    for id_ in (*chosen.removed, *(id_ for id_, torn in is_torn.items() if torn)):
        # It is no backup any more before a part of it is gone.
        for name in ("done.json", "manifest.json", "begun.json"):
            place.delete(f"{FOLDER}{id_}/{name}")
    if not all(is_torn.values()):
        return chosen.removed
    if chosen.problem is not None:
        raise StoreError(chosen.problem)
    blobs = list(place.list(BLOBS))
    later = find_backups(place)
    if later.unfinished or set(later.done) - set(found.done):
        # It has begun since.
        return chosen.removed
    for key in blobs:
        if key.removeprefix(BLOBS) not in chosen.named:
            place.delete(key)
    return chosen.removed


def _choose(
    place: ObjectStore, done: Sequence[str], keep: int, *, spared: set[str], taken: str | None
) -> _Choice:
    """From the newest on; those that are spared do not count."""
    count: Counter[Kind] = Counter()
    removed: list[str] = []
    named: set[str] = set()
    problem: str | None = None
    for id_ in reversed(done):
        may_go = id_ not in spared and id_ != taken
        try:
            manifest = read_manifest(place, id_)
        except StoreError as error:
            # It may be a full one.
            if may_go and count["all"] >= keep:
                removed.append(id_)
            else:
                folder = f"{place.url}/{FOLDER}{id_}"
                advice = f"if this backup is not wanted, delete {folder}"
                problem = f"{error}; so it is not known what it holds, and no content was removed; {advice}"
            continue
        if id_ not in spared:
            count[manifest.kind] += 1
        if may_go and count[manifest.kind] > keep:
            removed.append(id_)
            continue
        named |= {blob.sha256 for blob in manifest.objects.values()}
        named |= {manifest.registry.sha256} if manifest.registry else set()
    return _Choice(removed=tuple(reversed(removed)), named=named, problem=problem)


def _begun_s(place: ObjectStore, id_: str) -> float:
    """When the last object of an unfinished backup was written."""
    return max((one.modified_s for one in place.scan(f"{FOLDER}{id_}/")), default=0.0)
