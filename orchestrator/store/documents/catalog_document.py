"""The strict model of the catalog's JSON, of this schema and of the earlier ones."""

import zlib
from collections.abc import Set
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, Self

from pydantic import Field, StringConstraints, model_validator, with_config
from typing_extensions import TypedDict

from orchestrator.errors import StoreError
from orchestrator.store.documents.catalog import (
    MAX_CONTENT_BYTES,
    SCHEMA_VERSION,
    Canary,
    CatalogEntry,
    IdleTask,
)
from orchestrator.store.documents.document import STRICT, Digest, Document, TaskName

__all__ = ["CatalogValues", "read_catalog"]

Version = Annotated[int, Field(ge=1)]
VersionKey = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
_ADVICE = "update this program, or delete the catalog, and it is written anew"
_ENTRY = {"version", "digest", "others", "canary", "shadow"}
# Keys of the catalog and of its entries by schema. The first had the champion alone; the first two had a
# fingerprint that was never written; the first four had no decision rules, the first five no backbones.
_KEYS = {
    1: {"schema_", "backbone_fingerprint", "tasks"},
    2: {"schema_", "backbone_fingerprint", "tasks"},
    3: {"schema_", "tasks"},
    4: {"schema_", "registry", "tasks"},
    5: {"schema_", "registry", "tasks", "idle"},
    SCHEMA_VERSION: {"schema_", "registry", "tasks", "idle", "backbone", "backbones"},
}
_FIRST_ENTRY = {"version", "digest"}
_FIRST_WITH_RULES = 5
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class CatalogValues:
    """Fields of a ``Catalog``."""

    entries: dict[str, CatalogEntry]
    idle: dict[str, IdleTask]
    registry: str | None
    backbone: str | None
    backbones: dict[str, str | None]


def read_catalog(content: bytes) -> CatalogValues:
    """The values in a catalog's content.

    Raises:
        StoreError: It is not a catalog; lists all problems.
    """
    document = _Document.read(_unpack(content), "catalog", _ADVICE)
    entries = {task: _make_entry(values) for task, values in document.tasks.items()}
    idle = {task: _make_idle(values) for task, values in document.idle.items()}
    return CatalogValues(
        entries=entries,
        idle=idle,
        registry=document.registry,
        backbone=document.backbone,
        backbones=document.backbones,
    )


def _unpack(content: bytes) -> bytes:
    if not content.startswith(_GZIP):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(content, MAX_CONTENT_BYTES)
    except zlib.error as error:
        raise StoreError(f"catalog: it cannot be unpacked ({error}); {_ADVICE}") from None
    if not unpacker.eof:
        raise StoreError(
            f"catalog: torn, or more than {MAX_CONTENT_BYTES} bytes when it is unpacked; {_ADVICE}"
        )
    return unpacked


# A catalog has thousands of entries, and a dictionary takes half as long as a model.
@with_config(STRICT)
class _Canary(TypedDict):
    version: Version
    share: Annotated[float, Field(gt=0, lt=1)]


@with_config(STRICT)
class _Entry(TypedDict):
    version: Version
    digest: Digest
    others: NotRequired[dict[VersionKey, Digest]]
    canary: NotRequired[_Canary | None]
    shadow: NotRequired[Version | None]
    rules: NotRequired[dict[Digest, Digest]]


@with_config(STRICT)
class _Idle(TypedDict):
    is_retired: bool
    versions: dict[VersionKey, Digest]
    rules: NotRequired[dict[Digest, Digest]]


class _Document(Document):
    schema_: int = Field(alias="schema", ge=1, le=SCHEMA_VERSION)
    backbone_fingerprint: Any = None
    registry: str | None = None
    tasks: dict[TaskName, _Entry]
    idle: dict[TaskName, _Idle] = Field(default_factory=dict)
    backbone: Digest | None = None
    backbones: dict[Digest, Digest | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.model_fields_set != _KEYS[self.schema_]:
            raise ValueError(f"expected the keys of schema {self.schema_}")
        keys = _ENTRY if self.schema_ > 1 else _FIRST_ENTRY
        more = {"rules"} if self.schema_ >= _FIRST_WITH_RULES else set()
        found = {task: _find_problem(entry, keys, more) for task, entry in self.tasks.items()}
        if wrong := [f"tasks/{task}: {problem}" for task, problem in found.items() if problem]:
            raise ValueError("; ".join(wrong))
        for task, idle in self.idle.items():
            if idle.get("rules", {}).keys() - idle["versions"].values():
                raise ValueError(f"idle/{task}: rules: expected rules of the artifacts that are named")
        if self.backbones.keys() - self._digests():
            raise ValueError("backbones: expected artifacts that are named")
        if self.backbone is None and self.backbones:
            raise ValueError("backbones: expected none beside no backbone")
        if both := sorted(self.tasks.keys() & self.idle.keys()):
            raise ValueError(f"idle/{both[0]}: expected tasks without a champion")
        return self

    def _digests(self) -> set[str]:
        if not self.backbones:
            return set()
        named = [[entry["digest"], *entry.get("others", {}).values()] for entry in self.tasks.values()]
        return set().union(*named, *(idle["versions"].values() for idle in self.idle.values()))


def _find_problem(entry: _Entry, keys: Set[str], more: Set[str]) -> str | None:
    if entry.keys() - more != keys:
        return f"expected exactly the keys {', '.join(sorted(keys))}"
    others, canary, shadow = entry.get("others", {}), entry.get("canary"), entry.get("shadow")
    if str(entry["version"]) in others:
        return "others: expected versions beside the champion"
    if canary is not None and str(canary["version"]) not in others:
        return "canary: expected one of the others"
    if shadow is not None and str(shadow) not in others:
        return "shadow: expected one of the others"
    if entry.get("rules", {}).keys() - {entry["digest"], *others.values()}:
        return "rules: expected rules of the artifacts that are named"
    return None


def _make_entry(values: _Entry) -> CatalogEntry:
    canary = values.get("canary")
    return CatalogEntry(
        version=values["version"],
        digest=values["digest"],
        others={int(version): digest for version, digest in values.get("others", {}).items()},
        canary=None if canary is None else Canary(**canary),
        shadow=values.get("shadow"),
        rules=values.get("rules", {}),
    )


def _make_idle(values: _Idle) -> IdleTask:
    versions = {int(version): digest for version, digest in values["versions"].items()}
    return IdleTask(is_retired=values["is_retired"], versions=versions, rules=values.get("rules", {}))
