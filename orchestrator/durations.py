"""Durations as text: ``90m``, ``12h``, ``1d``, ``1h30m``; and times that are given so, or as dates."""

import math
import re
from datetime import UTC, datetime

__all__ = ["DURATION_PATTERN", "describe_seconds", "format_duration", "parse_duration", "parse_time"]

DURATION_PATTERN = r"^(\d+(\.\d+)?w)?(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m(in)?)?(\d+(\.\d+)?s)?$"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_duration(value: object) -> float:
    """Seconds.

    Args:
        value: Text such as ``30m``, ``2h`` or ``1h30m``; units are w, d, h, m (or min) and s.

    Raises:
        ValueError: It is anything else; says what is expected.
    """
    text = value.strip() if isinstance(value, str) else ""
    seconds = 0.0
    if re.fullmatch(DURATION_PATTERN, text):
        for number, unit in re.findall(r"([\d.]+)([a-z])", text):
            seconds += float(number) * _SECONDS[unit]
    if not 0.0 < seconds < math.inf:
        raise ValueError("expected a duration above zero such as 30m, 2h or 1h30m")
    return seconds


def format_duration(seconds: float) -> str:
    """A length of time in the largest unit that it has at least one of, rounded down."""
    unit, size = next(
        ((unit, size) for unit, size in reversed(_SECONDS.items()) if seconds >= size), ("s", 1.0)
    )
    return f"{int(seconds // size)}{unit}"


def describe_seconds(seconds: float) -> str:
    """A span of time for a message, in the unit that suits it."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 600 * 60 else f"{seconds / 3600:.1f} h"


def parse_time(text: str, now_s: float) -> float:
    """A time in seconds since the epoch: a duration before now, or a date, in UTC if it names no zone.

    Args:
        text: Such as ``7d``, ``2026-11-01`` or ``2026-11-01T06:00+01:00``.
        now_s: Current time, seconds since the epoch.

    Raises:
        ValueError: It is neither; says what is expected.
    """
    try:
        return now_s - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a duration such as 7d, or a date such as 2026-11-01") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
