"""Soundness of a backup: what it names is in it, contents fit their digests, the log has no break."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from orchestrator.backup.contents import BackupObjects
from orchestrator.backup.layout import REGISTRY, Blob, Manifest, read_blob
from orchestrator.errors import StoreError
from orchestrator.store.artifact_files import read_stamps
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.publication import Marker
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.store.prompt_store import NUM_READERS, PromptStore
from ship.artifact.card import CARD

__all__ = ["Damage", "find_damage", "verify_backup"]


_Read = Callable[[str, Blob], bytes | None]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """An object that is damaged or missing.

    Attributes:
        key: Its key.
        named_by: Key of the object by which that was found: a card, a rule or a marker.
        said: What a person is told.
    """

    key: str
    named_by: str
    said: str


def find_damage(manifest: Manifest, read: _Read, keys: Iterable[str] | None = None) -> list[Damage]:
    """Damage that the store had, found by digests: artifacts that are not what their cards say, or missing.

    Args:
        manifest: The backup.
        read: Gives the content of an object's blob; None where the blob is damaged, which is none of the
            store's damage.
        keys: Those of the objects to find it by; by default all.
    """

    def look(key: str) -> list[Damage]:
        try:
            found = list(_check_object(manifest, key, read))
        except StoreError as error:
            found = [(key, said) for said in error.problems]
        return [Damage(key=damaged, named_by=key, said=said) for damaged, said in found]

    with ThreadPoolExecutor(NUM_READERS) as readers:
        looked_at = sorted(manifest.objects if keys is None else set(keys))
        return list(chain.from_iterable(readers.map(look, looked_at)))


def _check_object(manifest: Manifest, key: str, read: _Read) -> Iterator[tuple[str, str]]:
    """Keys of what is damaged, each with what is said of it."""
    blob = manifest.objects[key]
    folder, _, name = key.rpartition("/")
    if key.startswith("artifacts/") and name == CARD:
        yield from _check_artifact(manifest, folder, blob, read(key, blob))
    elif key.startswith("rules/") and name != f"{blob.sha256}.json":
        yield key, f"{key}: it is not what its name says"
    elif key.startswith("published/") and manifest.kind == "all":
        yield from _check_marker(manifest, key, read(key, blob))


def _check_marker(manifest: Manifest, key: str, content: bytes | None) -> Iterator[tuple[str, str]]:
    if content is not None:
        digest = Marker.read(content, key, "restore it from a copy").digest
        card = f"artifacts/{digest}/{CARD}"
        if card not in manifest.objects:
            yield card, f"{key}: its artifact {digest[:12]} is not there"


def _check_artifact(
    manifest: Manifest, folder: str, card: Blob, content: bytes | None
) -> Iterator[tuple[str, str]]:
    if folder != f"artifacts/{card.sha256}":
        yield f"{folder}/{CARD}", f"{folder}/{CARD}: it is not what its name says"
        return
    if content is None:
        return
    for name, stamp in read_stamps(content, folder).items():
        key = f"{folder}/{name}"
        held = manifest.objects.get(key)
        if held is None:
            yield key, f"{key}: it is not there"
        elif (held.sha256, held.num_bytes) != (stamp.sha256, stamp.num_bytes):
            yield key, f"{key}: it is not the file that {CARD} describes"


def verify_backup(place: ObjectStore, manifest: Manifest) -> list[str]:
    """Check every content of a backup, and the audit log in it. Nothing is written.

    Args:
        place: Store of backups.
        manifest: The backup.

    Returns:
        All problems.

    Raises:
        StoreError: The place cannot be read.
    """
    blobs = {blob.sha256: (key, blob) for key, blob in manifest.objects.items()}
    if manifest.registry is not None:
        blobs[manifest.registry.sha256] = REGISTRY, manifest.registry

    def check(named: tuple[str, Blob]) -> str | None:
        key, blob = named
        try:
            read_blob(place, blob)
        except StoreError as error:
            return f"{key}: {error}"
        return None

    with ThreadPoolExecutor(NUM_READERS) as readers:
        problems = [problem for problem in readers.map(check, blobs.values()) if problem is not None]
    if problems:
        # What is read below would only repeat them.
        return problems
    objects = BackupObjects(place, manifest)
    damage = find_damage(manifest, lambda _, blob: read_blob(place, blob))
    breaks = verify(PromptStore(objects)).breaks
    said = [one.said for one in damage]
    return [*said, *(f"audit log: {one.place}: {one.kind}: {one.message}" for one in breaks)]
