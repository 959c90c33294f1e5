"""Restoration of a backup: what is named is written before what names it, the catalog last.

An endpoint on a store that is being restored serves nothing until all is there. A restoration that was ended
goes on when it is run again: ``restoring.json`` names its backup until the end.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.backup.contents import BackupObjects
from orchestrator.backup.layout import Blob, Manifest, digest_of, read_blob
from orchestrator.backup.taking import LEFT_OUT
from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.registry.copying import RegistryCopy
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.store.prompt_store import NUM_READERS

__all__ = ["MARK", "Restored", "check_restorable", "restore_backup"]

MARK = "restoring.json"
# Of what names others, in the order of writing; all else comes before.
_LATER = ("published/", "audit/head.json", "registry.json", "tokens.json", "approvals.json", "rollouts/")
_LAST = "catalog.json"


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A restoration.

    Attributes:
        num_objects: Objects of the backup.
        num_written: Those of them that were not in the store.
        has_registry: Whether a registry was restored, too.
    """

    num_objects: int
    num_written: int
    has_registry: bool


def check_restorable(objects: ObjectStore, manifest: Manifest, *, force: bool) -> None:
    """Refuse a store that holds something, unless it is what a restoration of this backup left.

    Raises:
        StoreError: It does.
    """
    try:
        # Another one's mark is no leave to go on.
        is_resumed = json.loads(objects.get(MARK, max_bytes=4096).data).get("backup") == manifest.id
    except (ObjectMissing, ValueError, AttributeError):
        is_resumed = False
    held = next((key for key in objects.list("") if not key.startswith(LEFT_OUT)), None)
    if held is not None and not (is_resumed or force):
        raise StoreError(
            f"{objects.url}: expected an empty store, it holds {held} and maybe more: nothing was written; "
            "set SHIP_STORE to another place, or say --force: objects of the backup then replace those of "
            "the same name, and others stay"
        )


def restore_backup(
    place: ObjectStore,
    manifest: Manifest,
    objects: ObjectStore,
    put_registry: Callable[[RegistryCopy], None] | None,
    *,
    force: bool = False,
) -> Restored:
    """Write a backup into a store, and its registry into an MLflow.

    Args:
        place: Store of backups.
        manifest: The backup.
        objects: The store that it is written to.
        put_registry: Restores a registry, and changes nothing if it is there already; None leaves it out.
        force: Whether the store may hold something.

    Raises:
        StoreError: The store holds something, or cannot be written; or the backup is damaged. The same call
            goes on from there.
        RegistryError: The registry cannot be restored.
    """
    check_restorable(objects, manifest, force=force)
    objects.put(MARK, (json.dumps({"schema": 1, "backup": manifest.id}) + "\n").encode())
    source, held, num_written = BackupObjects(place, manifest), set(objects.list("")), 0

    def write(key: str) -> bool:
        blob = manifest.objects[key]
        if key in held and digest_of(objects.get(key).data) == blob.sha256:
            return False
        objects.put(key, _read(place, blob, f"{source.url}/{key}"))
        return True

    def write_all(keys: list[str]) -> int:
        with ThreadPoolExecutor(NUM_READERS) as writers:
            return sum(writers.map(write, keys))

    keys = sorted(manifest.objects)
    num_written += write_all([key for key in keys if not key.startswith(_LATER) and key != _LAST])
    for prefix in _LATER:
        num_written += write_all([key for key in keys if key.startswith(prefix)])
    has_registry = put_registry is not None and manifest.registry is not None
    if put_registry is not None and manifest.registry is not None:
        blob = manifest.registry
        content = _read(place, blob, f"{source.url}: the registry")
        put_registry(RegistryCopy(form=blob.form, content=content))
    num_written += write_all([key for key in keys if key == _LAST])
    objects.delete(MARK)
    return Restored(num_objects=len(keys), num_written=num_written, has_registry=has_registry)


def _read(place: ObjectStore, blob: Blob, where: str) -> bytes:
    try:
        return read_blob(place, blob)
    except StoreError as error:
        other = "else restore from another place, or a backup that does not name it"
        raise StoreError(f"{where}: {error}; {other}") from error
