"""The terms on which a task is tuned: how urgent it is, until when, and what it may cost.

None of them changes what the prompt will be, so none is part of a task key.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.durations import parse_duration

__all__ = ["TERMS", "Terms", "parse_deadline"]

_MAX_PRIORITY = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a task is to be treated.

    Attributes:
        priority: Higher goes first.
        deadline_s: When it is to be published, seconds since the epoch; earlier goes first.
        budget_s: Seconds of one device that tuning it may take, by the plan's estimate.
    """

    priority: int = 0
    deadline_s: float | None = None
    budget_s: float | None = None

    @property
    def order(self) -> tuple[float, float]:
        """Sorts tasks: what goes first is least."""
        return -self.priority, math.inf if self.deadline_s is None else self.deadline_s


def parse_deadline(value: object) -> float:
    """Seconds since the epoch.

    Args:
        value: ISO 8601 with a zone, as text or as YAML's date-time.

    Raises:
        ValueError: It is anything else; says what is expected.
    """
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("expected a date-time with a zone such as 2026-11-30T06:00:00+01:00")
    return moment.timestamp()


def _parse_priority(value: object) -> int:
    if type(value) is not int or abs(value) > _MAX_PRIORITY:
        raise ValueError(f"expected a whole number of at most {_MAX_PRIORITY}")
    return value


# Key in a manifest -> field of ``Terms`` and how it is read.
TERMS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "priority": ("priority", _parse_priority),
    "deadline": ("deadline_s", parse_deadline),
    "budget": ("budget_s", parse_duration),
}
