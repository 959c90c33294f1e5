"""The catalog: the served versions of each task, in one small object that endpoints follow by its ETag.

The same content always gives the same bytes, so the ETag changes only when something to be served does.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, Self

from pydantic import Field, StringConstraints, model_validator, with_config
from typing_extensions import TypedDict

from orchestrator.store.document import STRICT, Digest, Document, TaskName

__all__ = ["Canary", "Catalog", "CatalogEntry"]

SCHEMA_VERSION = 3
Version = Annotated[int, Field(ge=1)]
VersionKey = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
_ADVICE = "update this program, or delete the catalog, and it is written anew"
_ENTRY = {"version", "digest", "others", "canary", "shadow"}
# Keys of the catalog and of its entries by schema. The first had the champion alone; the first two had a
# fingerprint that was never written.
_KEYS = {
    1: {"schema_", "backbone_fingerprint", "tasks"},
    2: {"schema_", "backbone_fingerprint", "tasks"},
    SCHEMA_VERSION: {"schema_", "tasks"},
}
_ENTRY_KEYS = {1: {"version", "digest"}, 2: _ENTRY, SCHEMA_VERSION: _ENTRY}


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
    """

    version: int
    digest: str
    others: Mapping[int, str] = field(default_factory=dict)
    canary: Canary | None = None
    shadow: int | None = None

    @property
    def versions(self) -> dict[int, str]:
        """Digests of all served versions, the champion first."""
        return {self.version: self.digest, **self.others}

    def to_values(self) -> dict[str, Any]:
        """The entry as JSON values."""
        canary = self.canary
        return {
            "version": self.version,
            "digest": self.digest,
            "others": {str(version): digest for version, digest in self.others.items()},
            "canary": None if canary is None else {"version": canary.version, "share": canary.share},
            "shadow": self.shadow,
        }


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The served versions of all tasks.

    Attributes:
        entries: Entries by task name.
    """

    entries: Mapping[str, CatalogEntry]

    def to_json(self) -> bytes:
        """The object's content."""
        values = {
            "schema": SCHEMA_VERSION,
            "tasks": {task: entry.to_values() for task, entry in self.entries.items()},
        }
        return (json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        document = _Document.read(content, "catalog", _ADVICE)
        return cls(entries={task: _make_entry(values) for task, values in document.tasks.items()})


# Of each of thousands of tasks: a dictionary takes half as long as a model.
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


class _Document(Document):
    schema_: int = Field(alias="schema", ge=1, le=SCHEMA_VERSION)
    backbone_fingerprint: Any = None
    tasks: dict[TaskName, _Entry]

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.model_fields_set != _KEYS[self.schema_]:
            raise ValueError(f"expected the keys of schema {self.schema_}")
        keys = _ENTRY_KEYS[self.schema_]
        found = {task: _find_problem(entry, keys) for task, entry in self.tasks.items()}
        if wrong := [f"tasks/{task}: {problem}" for task, problem in found.items() if problem]:
            raise ValueError("; ".join(wrong))
        return self


def _find_problem(entry: _Entry, keys: Set[str]) -> str | None:
    if entry.keys() != keys:
        return f"expected exactly the keys {', '.join(sorted(keys))}"
    others, canary, shadow = entry.get("others", {}), entry.get("canary"), entry.get("shadow")
    if str(entry["version"]) in others:
        return "others: expected versions beside the champion"
    if canary is not None and str(canary["version"]) not in others:
        return "canary: expected one of the others"
    if shadow is not None and str(shadow) not in others:
        return "shadow: expected one of the others"
    return None


def _make_entry(values: _Entry) -> CatalogEntry:
    canary = values.get("canary")
    return CatalogEntry(
        version=values["version"],
        digest=values["digest"],
        others={int(version): digest for version, digest in values.get("others", {}).items()},
        canary=None if canary is None else Canary(**canary),
        shadow=values.get("shadow"),
    )
