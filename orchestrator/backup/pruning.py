"""Removal of old backups, and of contents that no other backup names."""

import time
from collections.abc import Callable

from orchestrator.backup.layout import BLOBS, FOLDER, find_backups, find_misdated, read_manifest
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["prune_backups"]

# A backup under way takes contents for held that were there when it began.
_MAX_UNDER_WAY_S = 86400.0


def prune_backups(
    place: ObjectStore, keep: int, clock: Callable[[], float] = time.time, *, taken: str | None = None
) -> tuple[str, ...]:
    """Remove all backups but the newest, what was left of unfinished ones, and contents that none names.

    Backups that are dated later than now neither count nor go: they may be older or newer than all others.
    While another backup is under way, no content goes; a later call removes it.

    Args:
        place: Store of backups.
        keep: Number of backups that stay, at least 1.
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
    misdated = find_misdated(found.done, now_s)
    dated = [id_ for id_ in found.done if id_ not in misdated]
    removed = tuple(id_ for id_ in dated[:-keep] if id_ != taken)
    for id_ in (*removed, *(id_ for id_, torn in is_torn.items() if torn)):
        # It is no backup any more before a part of it is gone.
        for name in ("done.json", "manifest.json", "begun.json"):
            place.delete(f"{FOLDER}{id_}/{name}")
    if not all(is_torn.values()):
        return removed
    named: set[str] = set()
    for id_ in sorted(set(found.done) - set(removed)):
        manifest = read_manifest(place, id_)
        named |= {blob.sha256 for blob in manifest.objects.values()}
        named |= {manifest.registry.sha256} if manifest.registry else set()
    blobs = list(place.list(BLOBS))
    if find_backups(place).unfinished:
        # It has begun since.
        return removed
    for key in blobs:
        if key.removeprefix(BLOBS) not in named:
            place.delete(key)
    return removed


def _begun_s(place: ObjectStore, id_: str) -> float:
    """When the last object of an unfinished backup was written."""
    return max((one.modified_s for one in place.scan(f"{FOLDER}{id_}/")), default=0.0)
