"""Entries of the audit log, and the trail that a document of the store keeps of its changes there.

An entry names the digest of the entry before it, so that none can be changed, removed or moved unnoticed. A
document that changes carries the records of its changes until they are in the log, and from then on the
digest of the last one (its pin): a command that is killed in between loses none, and a log whose end was cut
off or written anew does not fit its documents.
"""

import getpass
import hashlib
import json
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import ManifestError, StoreError
from orchestrator.names import is_digest
from orchestrator.store.documents.writing import legible, to_bytes
from ship.redaction import redact_text, redact_values

__all__ = [
    "BEGIN",
    "EXPECTED_PIN",
    "MAX_ENTRY_BYTES",
    "NOWHERE",
    "UNKNOWN",
    "AuditEntry",
    "AuditRecord",
    "Author",
    "DamagedEntry",
    "Pin",
    "Trail",
    "shortened",
]

SCHEMA_VERSION = 1
MAX_ENTRY_BYTES = 32 << 10
# Records that wait in one document while the log cannot be written.
MAX_WAITING = 16
MAX_REASON = 1000
MAX_NAME = 200
BEGIN = "begin"
EXPECTED_PIN = "expected the number of an entry and 64 hex digits, as in 57:9f86d0..."
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Author:
    """Author of changes.

    Attributes:
        by: Name of the person: that of ``--as``, else of the user.
        host: Name of the machine.
        reason: Reason that was given.
        user: User of the operating system; empty where that is not known.

    All are legible, and as long as documents hold: every change of the store gets them from here.
    """

    by: str
    host: str
    reason: str = ""
    user: str = ""

    def __post_init__(self) -> None:
        for name in ("by", "host", "user"):
            object.__setattr__(self, name, legible(getattr(self, name))[:MAX_NAME])
        object.__setattr__(self, "reason", shortened(legible(self.reason)))

    @classmethod
    def of_process(cls, reason: str = "", name: str | None = None) -> "Author":
        """The user that this process runs as, on this machine.

        Args:
            reason: Reason of the changes.
            name: Name of the person, where it is not the user's.

        Raises:
            ManifestError: The name is empty, too long, or has characters that cannot be printed.
        """
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = UNKNOWN
        if name is not None and not (name.strip() and name.isprintable() and len(name) <= MAX_NAME):
            raise ManifestError(
                f"--as {name[:80]!r}: expected the name of a person, 1 to {MAX_NAME} printable characters"
            )
        return cls(by=name.strip() if name else user, host=socket.gethostname(), reason=reason, user=user)


@dataclass(frozen=True, kw_only=True)
class Pin:
    """An entry of the log, named by its place and its content.

    Attributes:
        sequence: Number of the entry, from 1; 0 for the place before the first.
        digest: sha256 of its bytes.
    """

    sequence: int
    digest: str

    @classmethod
    def of(cls, sequence: int, content: bytes) -> "Pin":
        """The pin of an entry's bytes."""
        return cls(sequence=sequence, digest=hashlib.sha256(content).hexdigest())

    @classmethod
    def parse(cls, text: str) -> "Pin | None":
        """The pin in a text such as ``57:9f86d0...``; None if it is none, see ``EXPECTED_PIN``."""
        number, _, digest = text.partition(":")
        is_number = number.isascii() and number.isdigit() and len(number) <= 12 and int(number) > 0
        return cls(sequence=int(number), digest=digest) if is_number and is_digest(digest) else None


NOWHERE = Pin(sequence=0, digest="0" * 64)


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """What an entry tells.

    Attributes:
        record_id: Unique; a writer whose answer was lost knows its own entry by it.
        since: An entry before which this one is not.
        action: What was done: ``promote``, ``rollback``, ``gate``, ``token-create``, ...
        task: Name of the task; None for what concerns no task.
        before: What was changed, as it was: JSON values by name.
        after: The same, as it is now.
        reason: Reason that was given, the gate's for its decisions.
        by: Name of the person; ``unknown`` for what was moved in MLflow's own page.
        user: User of the operating system; empty where that is not known.
        host: Name of the machine.
        time_s: Seconds since the epoch, by the clock of that machine.
    """

    record_id: str
    since: Pin
    action: str
    task: str | None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    by: str
    user: str
    host: str
    time_s: float

    @classmethod
    def make(
        cls,
        action: str,
        task: str | None,
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        author: Author,
        *,
        since: Pin,
        time_s: float,
        reason: str | None = None,
        record_id: str | None = None,
    ) -> "AuditRecord":
        """A record; secrets of URLs are cut out of it, and texts that are too long are shortened."""
        return cls(
            record_id=record_id or uuid.uuid4().hex,
            since=since,
            action=action,
            task=task,
            before=dict(before),
            after=dict(after),
            reason=redact_text(shortened(author.reason if reason is None else reason)),
            by=author.by[:MAX_NAME],
            user=author.user[:MAX_NAME],
            host=author.host[:MAX_NAME],
            time_s=time_s,
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {**vars(self), "since": vars(self.since)}


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """An entry of the log.

    Attributes:
        sequence: Its number, from 1.
        previous: sha256 of the entry before; zeros for the first.
        record: What it tells.
    """

    sequence: int
    previous: str
    record: AuditRecord

    def to_json(self) -> bytes:
        """The object's content.

        Raises:
            StoreError: It would be larger than a reader takes.
        """
        values = {
            "schema": SCHEMA_VERSION,
            "sequence": self.sequence,
            "previous": self.previous,
            "record": self.record.to_dict(),
        }
        content = to_bytes(json.dumps(redact_values(values), sort_keys=True, separators=(",", ":")) + "\n")
        if len(content) > MAX_ENTRY_BYTES:
            raise StoreError(
                f"audit entry {self.sequence} ({self.record.action}): {len(content)} bytes, expected at most "
                f"{MAX_ENTRY_BYTES}; name less in `before` and `after`"
            )
        return content

    @classmethod
    def from_json(cls, content: bytes, where: str) -> "AuditEntry":
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        # Imported here: commands that use these values start without pydantic.
        from orchestrator.store.documents.audit_document import read_entry

        return read_entry(content, where)


@dataclass(frozen=True, kw_only=True)
class DamagedEntry:
    """An entry of the log that cannot be read; nothing is known of whom or what it tells.

    Attributes:
        sequence: Its number, from 1.
        problem: Why.
    """

    sequence: int
    problem: str


@dataclass(frozen=True, kw_only=True)
class Trail:
    """A document's changes in the audit log.

    Attributes:
        waiting: Records of its changes that may not be in the log yet, oldest first.
        last: Entry of its last change that is; None if there is none.
    """

    waiting: tuple[AuditRecord, ...] = ()
    last: Pin | None = None

    def add(self, record: AuditRecord) -> "Trail":
        """The trail after one more change.

        Raises:
            StoreError: Too many wait.
        """
        if len(self.waiting) >= MAX_WAITING:
            raise StoreError(
                f"{len(self.waiting)} changes wait for the audit log, which cannot be written; give these "
                "credentials write access to audit/ in the store, then run the command again"
            )
        return Trail(waiting=(*self.waiting, record), last=self.last)

    def to_dict(self) -> dict[str, Any]:
        """The trail as JSON values; empty if there is nothing in it."""
        waiting = [record.to_dict() for record in self.waiting]
        return {
            **({"waiting": waiting} if waiting else {}),
            **({"last": vars(self.last)} if self.last else {}),
        }


def shortened(text: str) -> str:
    """A reason as long as a document holds."""
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."
