"""Lengths of time as people write them: ``90m``, ``12h``, ``1d``, ``2w``."""

import re

__all__ = ["format_duration", "parse_duration"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d{1,9})([smhdw])")


def parse_duration(text: str) -> int:
    """Seconds of a length of time.

    Raises:
        ValueError: It is none.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r}: expected a number and one of s, m, h, d, w, such as 12h or 1d")
    return int(found[1]) * _SECONDS[found[2]]


def format_duration(seconds: float) -> str:
    """A length of time in the largest unit that it has at least one of, rounded down."""
    unit, size = next(
        ((unit, size) for unit, size in reversed(_SECONDS.items()) if seconds >= size), ("s", 1)
    )
    return f"{int(seconds // size)}{unit}"
