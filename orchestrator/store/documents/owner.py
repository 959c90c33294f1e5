"""The registry that a store belongs to, ``registry.json``: only that one may say what the store serves."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from orchestrator.store.documents.document import Document

__all__ = ["MAX_OWNER_BYTES", "Owner"]

MAX_OWNER_BYTES = 4096
_ADVICE = "restore it from a copy, or run `ship sync --adopt` with the right MLFLOW_TRACKING_URI"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The registry of a store.

    Attributes:
        registry: Identity of the registry, see ``MlflowSession.find_identity``.
        where: Its URI when it was adopted, without credentials.
        since_s: Time of that, seconds since the epoch.
    """

    registry: str
    where: str
    since_s: float

    def to_json(self) -> bytes:
        """The object's content."""
        return (json.dumps({"schema": 1, **vars(self)}, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        found = _Document.read(content, "registry.json", _ADVICE)
        return cls(registry=found.registry, where=found.where, since_s=found.since_s)


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    registry: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    where: Annotated[str, StringConstraints(max_length=2000)]
    since_s: float
