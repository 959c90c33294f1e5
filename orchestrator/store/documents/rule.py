"""A decision rule that took the place of an artifact's own one: an immutable object of the store.

``rules/<sha256 of its content>.json``. A task's rollout names the rules of its artifacts, the catalog those
of the versions that are served.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from orchestrator.errors import StoreError
from orchestrator.store.documents.document import Digest, Document, TaskName
from orchestrator.store.documents.writing import to_bytes
from ship.decision.rule import DecisionRule
from ship.errors import ConfigError

__all__ = ["MAX_RULE_BYTES", "StoredRule"]

SCHEMA_VERSION = 1
MAX_RULE_BYTES = 1 << 20
_ADVICE = "set the rule again with `ship threshold`"
_Text = Annotated[str, StringConstraints(max_length=2000)]


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    task: TaskName
    artifact: Digest
    rule: dict[str, Any]
    by: _Text
    host: _Text
    time_s: float = Field(allow_inf_nan=False)
    reason: _Text


@dataclass(frozen=True, kw_only=True)
class StoredRule:
    """A decision rule of one artifact of a task, and its origin.

    Attributes:
        task: Name of the task.
        artifact: Digest of the artifact whose scores it decides on.
        rule: The rule.
        by: Name of the user that set it.
        host: Name of the machine.
        time_s: Seconds since the epoch, by the clock of that machine.
        reason: Reason that was given.
    """

    task: str
    artifact: str
    rule: DecisionRule
    by: str
    host: str
    time_s: float
    reason: str = ""

    def to_json(self) -> bytes:
        """The object's content.

        Raises:
            StoreError: It would be larger than a reader takes.
        """
        values = {**vars(self), "rule": self.rule.to_dict(), "schema": SCHEMA_VERSION}
        content = to_bytes(json.dumps(values, sort_keys=True, allow_nan=False) + "\n")
        if len(content) > MAX_RULE_BYTES:
            raise StoreError(
                f"decision rule of task {self.task!r}: {len(content)} bytes, expected at most "
                f"{MAX_RULE_BYTES}; promise the recall of fewer classes"
            )
        return content

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        found = dict(_Document.read(content, where, _ADVICE))
        del found["schema_"]
        try:
            return cls(**{**found, "rule": DecisionRule.from_dict(found["rule"])})
        except ConfigError as error:
            raise StoreError(f"{where}: {error}; {_ADVICE}") from None

    @staticmethod
    def digest_of(content: bytes) -> str:
        """The digest that names an object of this content."""
        return hashlib.sha256(content).hexdigest()
