"""Checks of settings, each with the words for what it expects."""

from collections.abc import Callable, Mapping
from typing import Any

from ship.errors import ConfigError

__all__ = ["Check", "check_settings", "number", "one_of", "whole"]

# Whether a value is valid, and what would be.
Check = tuple[Callable[[Any], bool], str]


def whole(low: int, high: int | None = None) -> Check:
    """A whole number from ``low``, to ``high`` where one is given; both included."""
    expected = f"a whole number from {low}" + ("" if high is None else f" to {high}")
    return lambda v: type(v) is int and low <= v and (high is None or v <= high), expected


def number(expected: str, is_valid: Callable[[float], bool]) -> Check:
    """A number, and not NaN, that passes a test; ``expected`` says which, after "a number"."""
    return lambda v: type(v) in (int, float) and v == v and is_valid(v), f"a number {expected}"


def one_of(*values: str) -> Check:
    """One of some words."""
    *others, last = (f"`{value}`" for value in values)
    return lambda v: v in values, f"{', '.join(others)} or {last}"


def check_settings(settings: object, checks: Mapping[str, Check]) -> None:
    """Check attributes of ``settings`` by name.

    Raises:
        ConfigError: Lists all that are out of range.
    """
    problems = [
        f"{name}: expected {expected}, got {getattr(settings, name)!r}"
        for name, (is_valid, expected) in checks.items()
        if not is_valid(getattr(settings, name))
    ]
    if problems:
        raise ConfigError(problems)
