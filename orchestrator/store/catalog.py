"""The catalog: which version of each task is served. One small object that serving follows by its ETag.

The same content always gives the same bytes, so the ETag changes only when something to be served does.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from orchestrator.errors import StoreError
from orchestrator.names import is_task_name

__all__ = ["Catalog", "CatalogEntry", "is_digest"]

SCHEMA_VERSION = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = {"schema", "backbone_fingerprint", "tasks"}


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """What is served for one task.

    Attributes:
        version: In the registry, from 1.
        digest: Of the artifact in the store.
    """

    version: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All that is served.

    Attributes:
        entries: By task name.
        backbone_fingerprint: Of the backbone that the prompts belong to, if that is known.
    """

    entries: Mapping[str, CatalogEntry]
    backbone_fingerprint: str | None = None

    def to_json(self) -> bytes:
        """The object's content."""
        tasks = {
            task: {"version": entry.version, "digest": entry.digest} for task, entry in self.entries.items()
        }
        values = {
            "schema": SCHEMA_VERSION,
            "backbone_fingerprint": self.backbone_fingerprint,
            "tasks": tasks,
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
        return cls(
            entries={task: CatalogEntry(**entry) for task, entry in values["tasks"].items()},
            backbone_fingerprint=values["backbone_fingerprint"],
        )


def is_digest(value: object) -> bool:
    """Whether ``value`` is a sha256 in lower-case hex."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _find_problems(values: Any) -> list[str]:
    if not isinstance(values, dict) or set(values) != _KEYS:
        return [f"expected exactly the keys {', '.join(sorted(_KEYS))}; delete it, and it is written anew"]
    problems = []
    if values["schema"] != SCHEMA_VERSION:
        problems.append(f"schema: expected {SCHEMA_VERSION}, found {values['schema']!r}; update this program")
    if values["backbone_fingerprint"] is not None and not is_digest(values["backbone_fingerprint"]):
        problems.append(f"backbone_fingerprint: expected a sha256, found {values['backbone_fingerprint']!r}")
    if not isinstance(values["tasks"], dict):
        return [*problems, f"tasks: expected an object, found {type(values['tasks']).__name__}"]
    return problems + [
        f"tasks: {str(task)[:80]!r}: expected a task name with a version from 1 and a digest, "
        f"found {str(entry)[:120]}"
        for task, entry in values["tasks"].items()
        if not (is_task_name(task) and _is_entry(entry))
    ]


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"version", "digest"}:
        return False
    version = entry["version"]
    return type(version) is int and version >= 1 and is_digest(entry["digest"])
