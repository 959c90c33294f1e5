"""The catalog: the served versions of each task, in one small object that endpoints follow by its ETag.

The same content always gives the same bytes, so the ETag changes only when something to be served does. A
large one is compressed.
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from orchestrator.errors import StoreError
from orchestrator.store.documents.writing import to_bytes

__all__ = [
    "CATALOG_KEY",
    "MAX_CATALOG_BYTES",
    "MAX_CONTENT_BYTES",
    "SCHEMA_VERSION",
    "BrokenEntry",
    "Canary",
    "Catalog",
    "CatalogEntry",
    "IdleTask",
]

CATALOG_KEY = "catalog.json"
SCHEMA_VERSION = 6
# Of the object, and of its content. A hundred thousand tasks with four versions each take 34 and 66 MB.
MAX_CATALOG_BYTES, MAX_CONTENT_BYTES = 64 << 20, 256 << 20
_COMPRESSED_FROM_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A version that answers a share of a task's requests before it may answer all.

    Attributes:
        version: Version in the registry.
        share: Share of the requests, above 0 and below 1.
    """

    version: int
    share: float


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """The served versions of one task.

    Attributes:
        version: The champion's version in the registry, from 1.
        digest: Digest of the champion's artifact in the store.
        others: Digests of the other versions that a request may name: those with an alias.
        canary: The other version that answers a share of the requests, if any.
        shadow: The other version that gets copies of requests and whose answers are dropped, if any.
        rules: Digest of the decision rule by digest of the artifact, of versions that do not decide by their
            artifact's own rule.
    """

    version: int
    digest: str
    others: Mapping[int, str] = field(default_factory=dict)
    canary: Canary | None = None
    shadow: int | None = None
    rules: Mapping[str, str] = field(default_factory=dict)

    @property
    def versions(self) -> dict[int, str]:
        """Digests of all served versions, the champion first."""
        return {self.version: self.digest, **self.others}

    def to_values(self) -> dict[str, Any]:
        """The entry as JSON values."""
        canary = self.canary
        values = {
            "version": self.version,
            "digest": self.digest,
            "others": {str(version): digest for version, digest in self.others.items()},
            "canary": None if canary is None else {"version": canary.version, "share": canary.share},
            "shadow": self.shadow,
        }
        return {**values, "rules": dict(self.rules)} if self.rules else values


@dataclass(frozen=True, kw_only=True)
class IdleTask:
    """A registered task without a champion.

    Attributes:
        is_retired: Whether it was taken out of service; else it waits for its first champion.
        versions: Digests of the versions that a request may name: those with an alias; of a retired task
            none.
        rules: See ``CatalogEntry``.
    """

    is_retired: bool = False
    versions: Mapping[int, str] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def to_values(self) -> dict[str, Any]:
        """The task as JSON values."""
        versions = {str(version): digest for version, digest in self.versions.items()}
        values = {"is_retired": self.is_retired, "versions": versions}
        return {**values, "rules": dict(self.rules)} if self.rules else values


@dataclass(frozen=True, kw_only=True)
class BrokenEntry:
    """An entry of a task that cannot be read.

    Attributes:
        problem: What is wrong with it.
        place: Where it is: ``tasks`` or ``idle``.
        values: Its JSON values.
    """

    problem: str
    place: str
    values: Any


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The served versions of all tasks.

    Attributes:
        entries: Entries by task name.
        registry: Identity of the registry that it was written from; None before there were any.
        idle: Registered tasks without a champion, by name; none of them is in ``entries``.
        broken: Entries that cannot be read, by name; they are written as they were found.
        backbone: Fingerprint of the backbone that most artifacts were tuned on; None if none is known.
        backbones: Fingerprint by digest of the artifacts of other backbones; None for one that is not known.
    """

    entries: Mapping[str, CatalogEntry]
    registry: str | None = None
    idle: Mapping[str, IdleTask] = field(default_factory=dict)
    broken: Mapping[str, BrokenEntry] = field(default_factory=dict)
    backbone: str | None = None
    backbones: Mapping[str, str | None] = field(default_factory=dict)

    def find(self, task: str) -> CatalogEntry | IdleTask | None:
        """The entry of a task, or what it is without one; None if it is not registered."""
        return self.entries.get(task) or self.idle.get(task)

    def mended(self, before: Self | None) -> Self:
        """The catalog, with the entries of ``before`` in place of those that cannot be read."""
        known = {} if before is None else {**before.entries, **before.idle}
        kept = {task: known[task] for task in self.broken if task in known}
        entries = {task: state for task, state in kept.items() if isinstance(state, CatalogEntry)}
        idle = {task: state for task, state in kept.items() if isinstance(state, IdleTask)}
        return replace(self, entries={**self.entries, **entries}, idle={**self.idle, **idle})

    def backbone_of(self, digest: str) -> str | None:
        """Fingerprint of the backbone of one of its artifacts; None if it is not known."""
        return self.backbones.get(digest, self.backbone)

    def with_backbones(self, known: Callable[[str], str | None]) -> Self:
        """The catalog with the backbones of its artifacts.

        Args:
            known: Gives the fingerprint by the digest of an artifact; None if it is not known.
        """
        found = {digest: known(digest) for digest in self.digests}
        count = Counter(backbone for backbone in found.values() if backbone is not None)
        most = min(count, key=lambda backbone: (-count[backbone], backbone), default=None)
        others = {digest: backbone for digest, backbone in found.items() if backbone != most}
        return replace(self, backbone=most, backbones=others)

    @property
    def digests(self) -> frozenset[str]:
        """Digests of all versions that may be asked for."""
        served = {digest for entry in self.entries.values() for digest in entry.versions.values()}
        return frozenset(served.union(*(found.versions.values() for found in self.idle.values())))

    @property
    def named_rules(self) -> frozenset[str]:
        """Digests of all decision rules that may be asked for."""
        rules = [entry.rules for entry in self.entries.values()] + [idle.rules for idle in self.idle.values()]
        return frozenset(digest for of_task in rules for digest in of_task.values())

    def to_bytes(self) -> bytes:
        """The object: JSON, compressed if it is large.

        Raises:
            StoreError: It would be larger than a reader takes.
        """
        states: dict[str, dict[str, Any]] = {
            "tasks": {task: entry.to_values() for task, entry in self.entries.items()},
            "idle": {task: found.to_values() for task, found in self.idle.items()},
        }
        for task, broken in self.broken.items():
            if self.find(task) is None:
                states[broken.place][task] = broken.values
        values = {
            "schema": SCHEMA_VERSION,
            "registry": self.registry,
            "backbone": self.backbone,
            "backbones": dict(self.backbones),
            **states,
        }
        content = to_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n")
        large = len(content) >= _COMPRESSED_FROM_BYTES
        packed = gzip.compress(content, compresslevel=1, mtime=0) if large else content
        if len(content) > MAX_CONTENT_BYTES or len(packed) > MAX_CATALOG_BYTES:
            raise StoreError(
                f"catalog: {len(self.entries)} tasks take {len(packed)} bytes ({len(content)} unpacked), "
                f"expected at most {MAX_CATALOG_BYTES} ({MAX_CONTENT_BYTES}): the one before stays; use a "
                "store for each plant, or drop aliases in MLflow that are not needed"
            )
        return packed

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read the object. Anything unexpected of one task is left out, and named in ``broken``.

        Raises:
            StoreError: It is no catalog; lists all problems.
        """
        # Imported here: the registry's commands use these values, and start without pydantic.
        from orchestrator.store.documents.catalog_document import read_catalog

        return cls(**vars(read_catalog(content)))
