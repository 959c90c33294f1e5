"""The strict model of the rules on approvals."""

from typing import Any, Literal

from pydantic import Field

from orchestrator.store.documents.audit_document import TrailDocument
from orchestrator.store.documents.document import Document, TaskName
from orchestrator.store.documents.tokens import Pattern

__all__ = ["read_approvals"]

_ADVICE = "restore it from a copy, or delete it and say again which tasks need approvals: `ship approvals`"


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    patterns: list[Pattern]
    tasks: list[TaskName]
    trail: TrailDocument = TrailDocument()


def read_approvals(content: bytes) -> dict[str, Any]:
    """The fields of ``ApprovalRules`` in an object's content.

    Raises:
        StoreError: It is none; lists all problems.
    """
    found = _Document.read(content, "approvals.json", _ADVICE)
    return {
        "patterns": tuple(found.patterns),
        "tasks": frozenset(found.tasks),
        "trail": found.trail.to_trail(),
    }
