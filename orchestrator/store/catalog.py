"""The catalog: which versions of each task can be had. One small object that serving follows by its ETag.

The same content always gives the same bytes, so the ETag changes only when something to be served does.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from orchestrator.errors import StoreError
from orchestrator.names import is_digest, is_task_name

__all__ = ["Canary", "Catalog", "CatalogEntry"]

SCHEMA_VERSION = 3
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_ENTRY = {"version", "digest", "others", "canary", "shadow"}
# By schema, of the catalog and of its entries. The first knew the champion alone; until the second there was
# room for a fingerprint that nobody wrote.
_KEYS = {
    1: {"schema", "backbone_fingerprint", "tasks"},
    2: {"schema", "backbone_fingerprint", "tasks"},
    SCHEMA_VERSION: {"schema", "tasks"},
}
_ENTRY_KEYS = {1: {"version", "digest"}, 2: _ENTRY, SCHEMA_VERSION: _ENTRY}


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A version that takes some of a task's requests, to be judged before it takes all.

    Attributes:
        version: In the registry.
        share: Of the requests, above 0 and below 1.
    """

    version: int
    share: float


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """What is served for one task.

    Attributes:
        version: The champion, in the registry, from 1.
        digest: Of the champion's artifact in the store.
        others: Digests of the other versions that can be asked for by number: those with an alias.
        canary: The one of them that takes a share of the requests, if any.
        shadow: The one of them that is asked beside the champion and answers nobody, if any.
    """

    version: int
    digest: str
    others: Mapping[int, str] = field(default_factory=dict)
    canary: Canary | None = None
    shadow: int | None = None

    @property
    def versions(self) -> dict[int, str]:
        """Version to digest of all that can be had, the champion first."""
        return {self.version: self.digest, **self.others}

    def to_values(self) -> dict[str, Any]:
        """What JSON can hold."""
        canary = self.canary
        return {
            "version": self.version,
            "digest": self.digest,
            "others": {str(version): digest for version, digest in self.others.items()},
            "canary": None if canary is None else {"version": canary.version, "share": canary.share},
            "shadow": self.shadow,
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The reverse, of values that were checked; those of schema 1 have a champion alone."""
        canary = values.get("canary")
        return cls(
            version=values["version"],
            digest=values["digest"],
            others={int(version): digest for version, digest in values.get("others", {}).items()},
            canary=None if canary is None else Canary(**canary),
            shadow=values.get("shadow"),
        )


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All that is served.

    Attributes:
        entries: By task name.
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
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"catalog: not JSON: {error}; delete it, and it is written anew") from error
        if problems := _find_problems(values):
            raise StoreError([f"catalog: {problem}" for problem in problems])
        entries = {task: CatalogEntry.from_values(entry) for task, entry in values["tasks"].items()}
        return cls(entries=entries)


def _find_problems(values: Any) -> list[str]:
    if not isinstance(values, dict) or "schema" not in values:
        return ["expected an object with a schema; delete it, and it is written anew"]
    schema = values["schema"]
    if type(schema) is not int or schema not in _KEYS:
        known = ", ".join(map(str, _KEYS))
        return [f"schema: expected one of {known}, found {str(schema)[:80]!r}; update this program"]
    if set(values) != _KEYS[schema]:
        keys = ", ".join(sorted(_KEYS[schema]))
        return [f"expected exactly the keys {keys}; delete it, and it is written anew"]
    tasks = values["tasks"]
    if not isinstance(tasks, dict):
        return [f"tasks: expected an object, found {type(tasks).__name__}"]
    problems = []
    for task, entry in tasks.items():
        if not is_task_name(task):
            problems.append(f"tasks: {task[:80]!r}: expected a task name")
        elif wrong := _find_entry_problem(entry, _ENTRY_KEYS[schema]):
            problems.append(f"tasks: {task!r}: expected {wrong}, found {str(entry)[:160]}")
    return problems


def _find_entry_problem(entry: object, keys: set[str]) -> str | None:
    """What the entry ought to have been, if it is not."""
    if not isinstance(entry, dict) or set(entry) != keys:
        return f"exactly the keys {', '.join(sorted(keys))}"
    if not (_is_version(entry["version"]) and is_digest(entry["digest"])):
        return "a version from 1 and a digest"
    others = entry.get("others", {})
    if not (
        isinstance(others, dict) and all(_is_other(*other, entry["version"]) for other in others.items())
    ):
        return "others: other versions and their digests"
    if entry.get("canary") is not None and not _is_canary(entry["canary"], others):
        return "canary: one of the others and a share above 0 and below 1"
    shadow = entry.get("shadow")
    if shadow is not None and not (_is_version(shadow) and str(shadow) in others):
        return "shadow: one of the others"
    return None


def _is_version(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_other(version: str, digest: object, champion: int) -> bool:
    return _VERSION.fullmatch(version) is not None and int(version) != champion and is_digest(digest)


def _is_canary(value: object, others: Mapping[str, object]) -> bool:
    if not isinstance(value, dict) or set(value) != {"version", "share"}:
        return False
    share = value["share"]
    if not (_is_version(value["version"]) and str(value["version"]) in others):
        return False
    return type(share) in (int, float) and 0.0 < share < 1.0
