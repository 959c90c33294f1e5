"""Taking a backup of a store and its registry while endpoints and tunings write to both.

Nothing is locked: the order of reading makes the copy consistent. Every writer writes what is named before
what names it, so a reader that reads what names first finds all that is named::

    writers:  artifact -> publication;  rule, artifact -> rollout -> MLflow's aliases -> catalog;
              document with its change waiting -> entry of the audit log -> document that pins the entry
    backup:   catalog -> rollouts, tokens, approvals, owner, the log's head -> MLflow -> publications
              -> artifacts, rules and all others -> entries of the audit log

So each digest and each pin in the copy is of something that is in it. What was written while the copy was
made is in it as a whole, or in the parts that were read later: a version in MLflow whose rollout is older
counts as a move made in MLflow's page, as after a command that was ended, and `ship sync` takes it in; an
entry of the log past the documents' pins is a later entry and no break.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from orchestrator.backup.copier import Copier
from orchestrator.backup.layout import (
    REGISTRY,
    Blob,
    Kind,
    Manifest,
    RegistryBlob,
    find_backups,
    new_id,
    read_manifest,
    write_begun,
    write_done,
)
from orchestrator.backup.soundness import Damage, find_damage
from orchestrator.errors import StoreError
from orchestrator.registry.copying import RegistryCopy
from orchestrator.store.audit.log import FOLDER as AUDIT
from orchestrator.store.audit.log import AuditLog, entry_key
from orchestrator.store.kept.pictures import REVIEWS
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.store.prompt_store import PromptStore
from ship.version import __version__

__all__ = ["LEFT_OUT", "Taken", "take_backup"]

# Of one moment: a lease, marks that are made anew, scratch objects, a restoration under way.
LEFT_OUT = ("recorder.json", "restoring.json", "garbage/", "tries/", "doctor-")
_POINTERS = ("catalog.json", "rollouts/", "tokens.json", "approvals.json", "registry.json", "audit/head.json")
# What cannot be rebuilt, beside the pointers and the audit log.
_METADATA = ("rules/", REVIEWS)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A backup that was taken.

    Attributes:
        manifest: Its content.
        num_copied: Objects that no earlier backup had.
        num_copied_bytes: Their size.
        rewritten: Keys of objects whose copies in the place were damaged, and were written again.
        damage: What is damaged or missing in the store, and is so in the backup.
        damaged_copies: What is damaged in the place, and could not be written again.
    """

    manifest: Manifest
    num_copied: int
    num_copied_bytes: int
    rewritten: tuple[str, ...]
    damage: tuple[str, ...]
    damaged_copies: tuple[str, ...]


def take_backup(
    objects: ObjectStore,
    place: ObjectStore,
    copy_registry: Callable[[], RegistryCopy | None],
    *,
    kind: Kind = "all",
    verify: bool = False,
    clock: Callable[[], float] = time.time,
) -> Taken:
    """Copy a store and its registry to a place that may hold backups already.

    Args:
        objects: The store.
        place: Store of backups.
        copy_registry: Copies the registry; None where there is none.
        kind: Which objects.
        verify: Whether copies that the place holds already are read, and written again where damaged; else
            only their sizes are looked at.
        clock: Current time, seconds since the epoch.

    Raises:
        StoreError: The store or the place failed, or one is in the other. What was copied stays and spares
            the next backup time; no backup was taken.
        RegistryError: The registry cannot be read; no backup was taken.
    """
    _check_apart(objects.url, place.url)
    made_s = clock()
    id_ = new_id(made_s)
    # Before contents are listed: what is there from then on stays.
    write_begun(place, id_)
    copier = Copier(objects, place, _read_last(place, kind, clock), verify=verify)
    copied: dict[str, Blob] = {}
    for prefix in _POINTERS:
        copied |= copier.copy(objects.list(prefix) if prefix.endswith("/") else [prefix])
    registry = _copy_registry(copier, copy_registry())
    copied |= copier.copy(objects.list("published/"))
    rest = chain(*map(objects.list, _METADATA)) if kind == "metadata" else objects.list("")
    copied |= copier.copy(key for key in rest if key not in copied and _belongs(key))
    copied |= copier.copy(_entries(objects))
    manifest = Manifest(
        schema=1,
        id=id_,
        kind=kind,
        made_s=made_s,
        program=__version__,
        store=objects.url,
        objects=copied,
        registry=registry,
    )
    manifest, damage = _find_damage(manifest, copier)
    write_done(place, manifest)
    return Taken(
        manifest=manifest,
        num_copied=copier.num_copied,
        num_copied_bytes=copier.num_copied_bytes,
        rewritten=tuple(sorted(copier.rewritten)),
        damage=tuple(one.said for one in damage),
        damaged_copies=tuple(sorted(copier.damaged)),
    )


def _check_apart(store: str, place: str) -> None:
    if f"{place}/".startswith(f"{store}/") or f"{store}/".startswith(f"{place}/"):
        raise StoreError(f"{place}: expected a place apart from the store {store}; name another one")


def _read_last(place: ObjectStore, kind: Kind, clock: Callable[[], float]) -> Manifest | None:
    """The last backup that names what this one will; None where it cannot be read, as all is copied then."""
    done = find_backups(place).done
    if not done:
        return None
    try:
        # For metadata any will do.
        return read_manifest(place, None if kind == "all" else done[-1], clock)
    except StoreError:
        return None


def _find_damage(manifest: Manifest, copier: Copier) -> tuple[Manifest, list[Damage]]:
    """The manifest and its damage, after what the last backup gave and is damaged was read in the store."""
    damage = find_damage(manifest, copier.read)
    # A card that is whole by now may show that files of its artifact are not.
    while again := copier.copy_again(one.key for one in damage):
        manifest = manifest.model_copy(update={"objects": manifest.objects | again})
        by = {one.named_by for one in damage if one.key in again}
        others = [one for one in damage if one.named_by not in by]
        damage = sorted(
            [*others, *find_damage(manifest, copier.read, by)], key=lambda one: (one.named_by, one.key)
        )
    return manifest, damage


def _belongs(key: str) -> bool:
    """Whether a key is of those that are read last: neither a pointer, nor of the log, nor left out."""
    return not key.startswith((*_POINTERS, *LEFT_OUT, "published/", AUDIT))


def _entries(objects: ObjectStore) -> Iterator[str]:
    """Keys of the audit log's entries up to the last one listed, those that a listing missed too."""
    return map(entry_key, AuditLog(PromptStore(objects)).likely_numbers())


def _copy_registry(copier: Copier, copy: RegistryCopy | None) -> RegistryBlob | None:
    if copy is None:
        return None
    blob = copier.write(REGISTRY, copy.content)
    return RegistryBlob(**dict(blob), form=copy.form)
