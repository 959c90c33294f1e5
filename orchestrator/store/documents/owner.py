"""The registry that a store belongs to, ``registry.json``: only that one may say what the store serves."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from orchestrator.store.documents.audit import Trail
from orchestrator.store.documents.audit_document import TrailDocument
from orchestrator.store.documents.document import Document
from orchestrator.store.documents.writing import to_bytes

__all__ = ["MAX_OWNER_BYTES", "Owner"]

MAX_OWNER_BYTES = 64 << 10
_ADVICE = "restore it from a copy, or run `ship sync --adopt` with the right MLFLOW_TRACKING_URI"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The registry of a store.

    Attributes:
        registry: Identity of the registry, see ``MlflowSession.find_identity``.
        where: Its URI when it was adopted, without credentials.
        since_s: Time of that, seconds since the epoch.
        trail: Its changes in the audit log.
    """

    registry: str
    where: str
    since_s: float
    trail: Trail = field(default_factory=Trail)

    def to_json(self) -> bytes:
        """The object's content."""
        values: dict[str, Any] = {
            "schema": 1,
            "registry": self.registry,
            "where": self.where,
            "since_s": self.since_s,
        }
        if trail := self.trail.to_dict():
            values["trail"] = trail
        return to_bytes(json.dumps(values, sort_keys=True) + "\n")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        found = _Document.read(content, "registry.json", _ADVICE)
        return cls(
            registry=found.registry, where=found.where, since_s=found.since_s, trail=found.trail.to_trail()
        )


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    registry: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    where: Annotated[str, StringConstraints(max_length=2000)]
    since_s: float
    trail: TrailDocument = TrailDocument()
