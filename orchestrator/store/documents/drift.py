"""``drift.json``: of each watched task how its served pictures compare with the held-out ones.

The poller of an endpoint writes it now and then; a person's acknowledgement of an alarm is written into it,
too. It says what was seen, and decides nothing about what serves.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from orchestrator.errors import StoreError
from orchestrator.store.documents.document import Digest, Document, TaskName
from orchestrator.store.documents.writing import to_bytes
from ship.errors import ConfigError
from ship.evaluation.drift import Reference

__all__ = ["DRIFT_KEY", "MAX_DRIFT_BYTES", "Acknowledged", "Alarm", "DriftEntry", "DriftStates"]

DRIFT_KEY = "drift.json"
MAX_DRIFT_BYTES = 64 << 20
_SCHEMA = 1
_ADVICE = "delete it, and a running endpoint writes it anew"
_Text = Annotated[str, StringConstraints(max_length=2000)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class _Alarm(Document):
    time_s: _Time
    num_seen: _Count
    signals: Annotated[list[_Text], Field(max_length=20)]


class _Acknowledged(Document):
    time_s: _Time
    by: _Text
    reason: _Text


class _Entry(Document):
    digest: Digest
    rule: Digest | None
    time_s: _Time
    num_seen: _Count
    evidence: _Time
    not_watched: _Text | None
    reference: dict[str, Any] | None
    recent: dict[str, Any] | None
    alarm: _Alarm | None
    acknowledged: _Acknowledged | None
    is_accepted: bool


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    tasks: dict[TaskName, _Entry]


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An alarm.

    Attributes:
        time_s: When it was raised, seconds since the epoch.
        num_seen: Pictures of the version that had been seen by then.
        signals: Signals that raised it: ``unsure``, ``confidence``, ``distance``, ``class``.
    """

    time_s: float
    num_seen: int
    signals: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Acknowledged:
    """A person's acknowledgement of an alarm: when, by whom, why."""

    time_s: float
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DriftEntry:
    """Drift of one version of a task, under one decision rule.

    Attributes:
        digest: Digest of the version's artifact.
        rule: Digest of the decision rule; None for the artifact's own.
        time_s: When it was written, seconds since the epoch.
        num_seen: Pictures that were seen.
        evidence: Evidence of drift as a share of what raises an alarm.
        not_watched: Why the task is not watched; None if it is.
        reference: Pictures that served ones are compared with.
        recent: The last pictures.
        alarm: The alarm, if one was raised.
        acknowledged: Its acknowledgement.
        is_accepted: Whether ``reference`` was accepted by a person in place of the held-out pictures.
    """

    digest: str
    rule: str | None
    time_s: float
    num_seen: int = 0
    evidence: float = 0.0
    not_watched: str | None = None
    reference: Reference | None = None
    recent: Reference | None = None
    alarm: Alarm | None = None
    acknowledged: Acknowledged | None = None
    is_accepted: bool = False

    @property
    def is_alarming(self) -> bool:
        """Whether there is an alarm that nobody has acknowledged."""
        return self.alarm is not None and self.acknowledged is None

    @property
    def state(self) -> str:
        """``alarm``, ``acknowledged``, ``not watched`` or ``steady``."""
        if self.not_watched is not None:
            return "not watched"
        if self.alarm is None:
            return "steady"
        return "alarm" if self.acknowledged is None else "acknowledged"

    def is_of(self, digest: str, rule: str | None) -> bool:
        """Whether it is of that version and rule."""
        return (self.digest, self.rule) == (digest, rule)

    def to_values(self) -> dict[str, Any]:
        """The entry as JSON values."""
        values = {**asdict(self), "evidence": round(self.evidence, 4), "time_s": round(self.time_s, 3)}
        for name in ("reference", "recent"):
            found: Reference | None = getattr(self, name)
            values[name] = None if found is None else found.to_dict()
        return values


@dataclass(frozen=True, kw_only=True)
class DriftStates:
    """Entries of tasks by name."""

    tasks: Mapping[str, DriftEntry] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The object's content.

        Raises:
            StoreError: It would be larger than a reader takes.
        """
        values = {task: entry.to_values() for task, entry in sorted(self.tasks.items())}
        content = to_bytes(json.dumps({"schema": _SCHEMA, "tasks": values}, separators=(",", ":")))
        if len(content) > MAX_DRIFT_BYTES:
            raise StoreError(f"{DRIFT_KEY}: {len(content)} bytes, expected at most {MAX_DRIFT_BYTES}")
        return content

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        document = _Document.read(content, DRIFT_KEY, _ADVICE)
        try:
            return cls(tasks={task: _make(entry) for task, entry in document.tasks.items()})
        except ConfigError as error:
            raise StoreError(f"{DRIFT_KEY}: {error}; {_ADVICE}") from None


def _make(found: _Entry) -> DriftEntry:
    alarm, acknowledged = found.alarm, found.acknowledged
    return DriftEntry(
        digest=found.digest,
        rule=found.rule,
        time_s=found.time_s,
        num_seen=found.num_seen,
        evidence=found.evidence,
        not_watched=found.not_watched,
        reference=None if found.reference is None else Reference.from_dict(found.reference),
        recent=None if found.recent is None else Reference.from_dict(found.recent),
        alarm=None
        if alarm is None
        else Alarm(time_s=alarm.time_s, num_seen=alarm.num_seen, signals=tuple(alarm.signals)),
        acknowledged=None if acknowledged is None else Acknowledged(**dict(acknowledged)),
        is_accepted=found.is_accepted,
    )
