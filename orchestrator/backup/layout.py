"""Layout of the place that holds backups, which is a store of objects itself::

    blobs/<sha256>                   content of objects, each once, whichever backups name it
    backups/<id>/begun.json          a backup is under way, or was ended before its end
    backups/<id>/manifest.json       key, digest and size of every object, and the copy of the registry
    backups/<id>/done.json           digest of the manifest; written last and once: this makes it a backup

An id begins with the UTC time at which the backup was begun, so ids are in the order of time. One that is
dated later than now was taken with a wrong clock, or is read with one: its place in that order is not known.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.store.documents.document import Digest, Document
from orchestrator.store.objects.protocol import ObjectStore, is_key

__all__ = [
    "BLOBS",
    "CLOCKS_DIFFER_S",
    "FOLDER",
    "REGISTRY",
    "Blob",
    "Kind",
    "Last",
    "Manifest",
    "RegistryBlob",
    "blob_key",
    "digest_of",
    "find_backups",
    "find_misdated",
    "new_id",
    "read_blob",
    "read_last",
    "read_manifest",
    "write_begun",
    "write_done",
]

BLOBS, FOLDER = "blobs/", "backups/"
# What messages call it; it has no key.
REGISTRY = "the copy of the registry"
Kind = Literal["all", "metadata"]
MAX_MANIFEST_BYTES, _MAX_DONE_BYTES = 1 << 30, 4096
_ADVICE = "take another backup, or update this program"
# Between the clocks of hosts that take backups.
CLOCKS_DIFFER_S = 3600.0
_Id = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$")]


class Blob(Document):
    """Digest and size of an object's content."""

    sha256: Digest
    num_bytes: int = Field(ge=0)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Those of a content."""
        return cls(sha256=digest_of(data), num_bytes=len(data))


class RegistryBlob(Blob):
    """The copy of a registry, and its form; see ``orchestrator.registry.copying``."""

    form: Literal["sqlite", "json"]


class Manifest(Document):
    """The content of a backup.

    Attributes:
        id: Its name.
        kind: ``all`` objects, or ``metadata``: those that cannot be rebuilt.
        made_s: When it was begun, seconds since the epoch.
        program: Version of the program that took it.
        store: URL of the store, without credentials.
        objects: Blob by key.
        registry: The copy of the registry; None where there was none.
    """

    schema_: Literal[1] = Field(alias="schema")
    id: _Id
    kind: Kind
    made_s: float
    program: str
    store: str
    objects: dict[str, Blob]
    registry: RegistryBlob | None

    @property
    def num_bytes(self) -> int:
        """Size of all objects."""
        return sum(blob.num_bytes for blob in self.objects.values())

    def to_json(self) -> bytes:
        """The object's content."""
        return (json.dumps(self.model_dump(by_alias=True), sort_keys=True) + "\n").encode()


class _Done(Document):
    schema_: Literal[1] = Field(alias="schema")
    manifest: Digest


@dataclass(frozen=True, kw_only=True)
class _Found:
    done: tuple[str, ...]
    unfinished: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last backup of a place: a full one, where there is one.

    Attributes:
        manifest: The backup.
        newer: Ids of those that were taken after it, all of metadata alone, from the oldest on.
    """

    manifest: Manifest
    newer: tuple[str, ...]


def digest_of(data: bytes) -> str:
    """The sha256 of a content."""
    return hashlib.sha256(data).hexdigest()


def blob_key(digest: str) -> str:
    """Key of a content."""
    return f"{BLOBS}{digest}"


def read_blob(place: ObjectStore, blob: Blob) -> bytes:
    """A content, checked against its digest.

    Raises:
        StoreError: It is gone, damaged, or cannot be read; the message says what writes it again.
    """
    key = blob_key(blob.sha256)
    advice = f"`ship backup {place.url} --verify` writes it again where the store still has it"
    try:
        data = place.get(key, max_bytes=blob.num_bytes).data
    except StoreError as error:
        raise StoreError(f"{error}; {advice}") from error
    if digest_of(data) != blob.sha256:
        raise StoreError(f"{place.url}/{key} is damaged; {advice}")
    return data


def new_id(now_s: float) -> str:
    """The id of a backup that begins now."""
    return f"{_date_text(now_s)}-{uuid.uuid4().hex[:8]}"


def find_misdated(ids: Iterable[str], now_s: float) -> tuple[str, ...]:
    """The ids that are dated later than now, by more than the clocks of hosts differ."""
    latest = _date_text(now_s + CLOCKS_DIFFER_S)
    return tuple(id_ for id_ in ids if id_ > latest)


def _date_text(now_s: float) -> str:
    return f"{datetime.fromtimestamp(now_s, tz=UTC):%Y%m%dT%H%M%SZ}"


def find_backups(place: ObjectStore) -> _Found:
    """Ids of the backups of a place, and of those that were not finished, each from the oldest on.

    Raises:
        StoreError: The place cannot be read.
    """
    names: dict[str, set[str]] = {}
    for key in place.list(FOLDER):
        id_, _, name = key.removeprefix(FOLDER).partition("/")
        names.setdefault(id_, set()).add(name)
    done = [id_ for id_, found in sorted(names.items()) if "done.json" in found]
    return _Found(done=tuple(done), unfinished=tuple(sorted(names.keys() - set(done))))


def write_begun(place: ObjectStore, id_: str) -> None:
    """Say that a backup is under way."""
    place.put_new(f"{FOLDER}{id_}/begun.json", b'{"schema": 1}\n')


def write_done(place: ObjectStore, manifest: Manifest) -> None:
    """Write the manifest of a backup, and then that it is one."""
    content = manifest.to_json()
    place.put(f"{FOLDER}{manifest.id}/manifest.json", content)
    done = {"schema": 1, "manifest": digest_of(content)}
    place.put_new(f"{FOLDER}{manifest.id}/done.json", (json.dumps(done) + "\n").encode())
    place.delete(f"{FOLDER}{manifest.id}/begun.json")


def read_manifest(
    place: ObjectStore, id_: str | None = None, clock: Callable[[], float] = time.time
) -> Manifest:
    """The manifest of a backup, checked against its digest.

    Args:
        place: The place that holds backups.
        id_: The backup; by default the last one, see ``read_last``.
        clock: Current time, seconds since the epoch.

    Raises:
        StoreError: There is no such backup, it was not finished, or its manifest is damaged.
    """
    if id_ is None:
        return read_last(place, clock).manifest
    found = find_backups(place)
    if id_ not in found.done:
        raise _no_backup(place, id_, found)
    return _read(place, id_)


def read_last(place: ObjectStore, clock: Callable[[], float] = time.time) -> Last:
    """The last full backup that was finished, or where there is none the last one of metadata.

    One that is dated later than now is only taken where all are.

    Args:
        place: The place that holds backups.
        clock: Current time, seconds since the epoch.

    Raises:
        StoreError: There is no finished backup, or a manifest is damaged that may be the last full one's.
    """
    found = find_backups(place)
    misdated = find_misdated(found.done, clock())
    newer: list[Manifest] = []
    for id_ in reversed([id_ for id_ in found.done if id_ not in misdated] or found.done):
        manifest = _read(place, id_)
        if manifest.kind == "all":
            return Last(manifest=manifest, newer=tuple(one.id for one in reversed(newer)))
        newer.append(manifest)
    if not newer:
        raise _no_backup(place, None, found)
    return Last(manifest=newer[0], newer=())


def _read(place: ObjectStore, id_: str) -> Manifest:
    where = f"{place.url}/{FOLDER}{id_}"
    done = place.get(f"{FOLDER}{id_}/done.json", max_bytes=_MAX_DONE_BYTES).data
    wanted = _Done.read(done, f"{where}/done.json", _ADVICE).manifest
    try:
        content = place.get(f"{FOLDER}{id_}/manifest.json", max_bytes=MAX_MANIFEST_BYTES).data
    except ObjectMissing:
        raise StoreError(f"{where}/manifest.json: it is gone; {_ADVICE}") from None
    if digest_of(content) != wanted:
        raise StoreError(f"{where}/manifest.json: it was damaged or changed; restore another backup")
    manifest = Manifest.read(content, f"{where}/manifest.json", _ADVICE)
    if bad := [key for key in manifest.objects if not is_key(key)]:
        raise StoreError(f"{where}/manifest.json: {bad[0][:80]!r} is no key of an object; {_ADVICE}")
    return manifest


def _no_backup(place: ObjectStore, id_: str | None, found: _Found) -> StoreError:
    said = f"no backup {id_[:80]!r}" if id_ is not None else "no finished backup"
    torn = f"; not finished, and so none: {', '.join(found.unfinished[-3:])}" if found.unfinished else ""
    listed = f"; it has {', '.join(found.done[-3:])}" if found.done else ""
    return StoreError(f"{place.url}: it holds {said}{listed}{torn}; `ship backup {place.url}` takes one")
