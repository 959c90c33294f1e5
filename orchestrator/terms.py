"""The terms on which a task is tuned: how urgent it is, until when, and what it may cost.

None of them changes what the prompt will be, so none is part of a task key.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["DURATION_PATTERN", "TERMS", "Terms", "describe_seconds", "parse_deadline", "parse_duration"]

DURATION_PATTERN = r"^(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m(in)?)?(\d+(\.\d+)?s)?$"
_UNIT_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
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


def parse_duration(value: object) -> float:
    """Seconds.

    Args:
        value: Text such as ``30m``, ``2h`` or ``1h30m``; units are d, h, m and s.

    Raises:
        ValueError: It is anything else; says what is expected.
    """
    text = value.strip() if isinstance(value, str) else ""
    seconds = 0.0
    if re.fullmatch(DURATION_PATTERN, text):
        for number, unit in re.findall(r"([\d.]+)([a-z]+)", text):
            seconds += float(number) * _UNIT_SECONDS[unit]
    if not 0.0 < seconds < math.inf:
        raise ValueError("expected a duration above zero such as 30m, 2h or 1h30m")
    return seconds


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


def describe_seconds(seconds: float) -> str:
    """A span of time for a message, in the unit that suits it."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 600 * 60 else f"{seconds / 3600:.1f} h"
