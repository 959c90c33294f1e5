"""The strict models of an entry of the audit log, and of a document's trail."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from orchestrator.store.documents.audit import MAX_WAITING, AuditEntry, AuditRecord, Pin, Trail
from orchestrator.store.documents.document import Digest, Document, TaskName

__all__ = ["PinDocument", "TrailDocument", "read_entry", "read_head"]

_ADVICE = "`ship audit --verify` lists all damage"
_Text = Annotated[str, StringConstraints(max_length=2000)]
_Action = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,39}$")]
_Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class PinDocument(Document):
    """A pin."""

    sequence: int = Field(ge=0)
    digest: Digest

    def to_pin(self) -> Pin:
        """The plain value."""
        return Pin(sequence=self.sequence, digest=self.digest)


class _Record(Document):
    record_id: _Id
    since: PinDocument
    action: _Action
    task: TaskName | None
    before: dict[str, JsonValue]
    after: dict[str, JsonValue]
    reason: _Text
    by: _Text
    user: _Text
    host: _Text
    time_s: float = Field(allow_inf_nan=False)

    def to_record(self) -> AuditRecord:
        return AuditRecord(**{**dict(self), "since": self.since.to_pin()})


class TrailDocument(Document):
    """A document's trail."""

    waiting: list[_Record] = Field(default=[], max_length=MAX_WAITING)
    last: PinDocument | None = None

    def to_trail(self) -> Trail:
        """The plain value."""
        return Trail(
            waiting=tuple(record.to_record() for record in self.waiting),
            last=None if self.last is None else self.last.to_pin(),
        )


class _Entry(Document):
    schema_: Literal[1] = Field(alias="schema")
    sequence: int = Field(ge=1)
    previous: Digest
    record: _Record


class _Head(PinDocument):
    schema_: Literal[1] = Field(alias="schema")


def read_entry(content: bytes, where: str) -> AuditEntry:
    """The entry in an object's content.

    Raises:
        StoreError: It is not one; lists all problems.
    """
    found = _Entry.read(content, where, _ADVICE)
    return AuditEntry(sequence=found.sequence, previous=found.previous, record=found.record.to_record())


def read_head(content: bytes, where: str) -> Pin:
    """The pin in the object that tells where the log ends.

    Raises:
        StoreError: It is not one; lists all problems.
    """
    return _Head.read(content, where, _ADVICE).to_pin()
