"""Tasks whose promotions wait for a second person's approval, ``approvals.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import Field

from orchestrator.store.documents.audit import Trail
from orchestrator.store.documents.audit_document import TrailDocument
from orchestrator.store.documents.document import Document, TaskName
from orchestrator.store.documents.tokens import Pattern

__all__ = ["MAX_APPROVALS_BYTES", "ApprovalRules"]

MAX_APPROVALS_BYTES = 4 << 20
_ADVICE = "restore it from a copy, or delete it and say again which tasks need approvals: `ship approvals`"


@dataclass(frozen=True, kw_only=True)
class ApprovalRules:
    """Tasks that need an approval.

    Attributes:
        patterns: Patterns of task names, set for the store: ``line-1-*``, ``*``.
        tasks: Names of tasks whose manifest asks for it.
        trail: Its changes in the audit log.
    """

    patterns: tuple[str, ...] = ()
    tasks: frozenset[str] = frozenset()
    trail: Trail = field(default_factory=Trail)

    def requires(self, task: str) -> bool:
        """Whether a promotion of the task waits for an approval."""
        return task in self.tasks or any(fnmatchcase(task, pattern) for pattern in self.patterns)

    def with_tasks(self, wanted: Mapping[str, bool]) -> Self:
        """The rules after a manifest has said of some tasks whether they need it."""
        kept = {task for task in self.tasks if wanted.get(task, True)}
        return replace(
            self, tasks=frozenset(kept | {task for task, is_needed in wanted.items() if is_needed})
        )

    def to_json(self) -> bytes:
        """The object's content."""
        values: dict[str, Any] = {"schema": 1, "patterns": list(self.patterns), "tasks": sorted(self.tasks)}
        if trail := self.trail.to_dict():
            values["trail"] = trail
        return (json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        found = _Document.read(content, "approvals.json", _ADVICE)
        return cls(patterns=tuple(found.patterns), tasks=frozenset(found.tasks), trail=found.trail.to_trail())


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    patterns: list[Pattern]
    tasks: list[TaskName]
    trail: TrailDocument = TrailDocument()
