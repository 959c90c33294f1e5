"""Events of a tuning, as plain values that can be sent, spooled and replayed."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from ship.redaction import redact_values

__all__ = ["Event", "EventKind"]

EventKind = Literal["leased", "search", "epoch", "published", "failed", "retried", "cancelled", "tagged"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of one task.

    Attributes:
        kind: ``leased`` (a worker took it; data: worker), ``search`` (a step of the search of its settings;
            data: round, num_rounds, num_candidates, is_new_round, and epoch and num_epochs of all rounds
            together), ``epoch`` (data: epoch, num_epochs, loss, matching_loss, train_accuracy, val_accuracy
            and val_loss or None, lr), ``published`` (data: digest, metrics), ``failed`` (for good; data:
            cause, detail), ``retried`` (this attempt is over, another will follow; data: cause),
            ``cancelled`` (on request) or ``tagged`` (its manifest has other tags for it now; data: tags and
            the time tagged_s at which they were read, as in ``published``).
        task: Task name.
        key: Task key, 64 hex digits.
        attempt: Fencing token of the lease, from 1; 0 of a task that was never taken up.
        time_s: Seconds since the epoch, by the clock of the process that saw it.
        data: Details by kind, JSON values only.
    """

    kind: EventKind
    task: str
    key: str
    attempt: int
    time_s: float
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(redact_values(vars(self)), sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read one line of JSON back."""
        return cls(**json.loads(line))
