"""Tasks whose promotions wait for a second person's approval, ``approvals.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Self

from orchestrator.store.documents.audit import Trail
from orchestrator.store.documents.writing import to_bytes

__all__ = ["MAX_APPROVALS_BYTES", "ApprovalRules"]

MAX_APPROVALS_BYTES = 4 << 20


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

    @property
    def are_empty(self) -> bool:
        """Whether no task needs one."""
        return not (self.patterns or self.tasks)

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
        return to_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        # Imported here: `ship ls` uses these values, and starts without pydantic.
        from orchestrator.store.documents.approvals_document import read_approvals

        return cls(**read_approvals(content))
