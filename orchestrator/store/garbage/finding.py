"""Unreferenced objects of a store, decided from listings alone, without touching the store.

An object younger than the limit stays, referenced or not. An artifact is written before the publication that
names it, so a young artifact without a publication may be one that a worker is about to publish.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.names import is_digest, is_task_name
from orchestrator.store.backbones import config_key, weights_key
from orchestrator.store.objects.protocol import ListedObject
from ship.artifact.card import CARD

__all__ = ["Garbage", "GarbageKind", "References", "StoreListing", "find_garbage"]

GarbageKind = Literal["artifact", "backbone", "kept", "rule", "snapshot", "temporary"]


@dataclass(frozen=True, kw_only=True)
class StoreListing:
    """The objects in a store.

    Attributes:
        artifacts: Objects under ``artifacts/``.
        snapshots: Objects under ``snapshots/``.
        leftovers: Temporary objects.
        rules: Objects under ``rules/``.
        backbones: Objects under ``backbones/``.
    """

    artifacts: Sequence[ListedObject]
    snapshots: Sequence[ListedObject]
    leftovers: Sequence[ListedObject]
    rules: Sequence[ListedObject] = ()
    backbones: Sequence[ListedObject] = ()


@dataclass(frozen=True, kw_only=True)
class References:
    """The references into a store. Read them after the listing, or a publication between the two is missed.

    Attributes:
        digests: Digests of artifacts that a publication, a version in the registry or the catalog names.
        published: Task and task key of everything that is published.
        rules: Digests of decision rules that a rollout or the catalog names.
    """

    digests: frozenset[str]
    published: frozenset[tuple[str, str]]
    rules: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What can be removed of a store: see ``find_garbage``; and kept pictures.

    Attributes:
        kind: Kind of object.
        name: Digest of an artifact or a rule, fingerprint of a backbone, ``task/key`` of a snapshot, key of a
            temporary object, ``task/sha256`` of a kept picture.
        keys: Keys of its objects, in the order of removal.
        num_bytes: Size of all of them.
        modified_s: When the newest of them was written, seconds since the epoch.
        reason: Why it can be removed.
    """

    kind: GarbageKind
    name: str
    keys: tuple[str, ...]
    num_bytes: int
    modified_s: float
    reason: str


def find_garbage(listing: StoreListing, references: References, *, before_s: float) -> list[Garbage]:
    """Objects older than the limit that nothing refers to, or whose writers did not finish.

    Args:
        listing: Objects in the store.
        references: References into the store.
        before_s: Limit of age; objects written at this time or later stay.

    Returns:
        Artifacts and rules that nothing names, snapshots, backbones without a configuration, and temporary
        objects, all of them older than the limit.
    """
    found = [
        *_artifacts(listing.artifacts, references),
        *_rules(listing.rules, references),
        *_snapshots(listing.snapshots, references),
        *_backbones(listing.backbones),
        *(_temporary(leftover) for leftover in listing.leftovers),
    ]
    return [garbage for garbage in found if garbage.modified_s < before_s]


def _artifacts(objects: Iterable[ListedObject], references: References) -> list[Garbage]:
    by_digest: dict[str, list[ListedObject]] = defaultdict(list)
    for found in objects:
        _, digest, *name = found.key.split("/")
        # What is not laid out as an artifact is not ours to judge.
        if is_digest(digest) and len(name) == 1:
            by_digest[digest].append(found)
    return [
        Garbage(
            kind="artifact",
            name=digest,
            # The card goes first: a concurrent reader then finds no artifact, not a damaged one.
            keys=tuple(
                sorted((one.key for one in files), key=lambda key: (not key.endswith(f"/{CARD}"), key))
            ),
            num_bytes=sum(one.num_bytes for one in files),
            modified_s=max(one.modified_s for one in files),
            reason="no publication, version or catalog entry names it",
        )
        for digest, files in by_digest.items()
        if digest not in references.digests
    ]


def _rules(objects: Iterable[ListedObject], references: References) -> list[Garbage]:
    by_digest = {one.key.removeprefix("rules/").removesuffix(".json"): one for one in objects}
    return [
        _single("rule", digest, one, "no rollout and no catalog entry names it")
        for digest, one in by_digest.items()
        if is_digest(digest) and digest not in references.rules
    ]


def _snapshots(objects: Iterable[ListedObject], references: References) -> list[Garbage]:
    found = []
    for one in objects:
        _, task, *key = one.key.split("/")
        if not is_task_name(task) or len(key) != 1:
            continue
        is_published = (task, key[0]) in references.published
        reason = "its task is published" if is_published else "its tuning was not resumed"
        found.append(_single("snapshot", f"{task}/{key[0]}", one, reason))
    return found


def _backbones(objects: Sequence[ListedObject]) -> list[Garbage]:
    """Weights whose configuration, which is written last, never came."""
    keys = {one.key for one in objects}
    return [
        _single("backbone", fingerprint, one, "its writer was killed")
        for one in objects
        if one.key == weights_key(fingerprint := one.key.split("/")[1])
        and is_digest(fingerprint)
        and config_key(fingerprint) not in keys
    ]


def _temporary(leftover: ListedObject) -> Garbage:
    return _single("temporary", leftover.key, leftover, "its writer was killed")


def _single(kind: GarbageKind, name: str, found: ListedObject, reason: str) -> Garbage:
    return Garbage(
        kind=kind,
        name=name,
        keys=(found.key,),
        num_bytes=found.num_bytes,
        modified_s=found.modified_s,
        reason=reason,
    )
