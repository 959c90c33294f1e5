"""Rows of an examination, and the place that is examined. Knows no check."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.registry.registry import Registry
from orchestrator.settings import Settings
from orchestrator.store.objects.protocol import ObjectStore
from ship.backbone_spec import BUNDLED

__all__ = ["Place", "Row", "State", "fail", "named", "ok", "skipped", "warn"]

State = Literal["ok", "warn", "fail", "skipped"]
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finding of a check.

    Attributes:
        what: What was looked at.
        state: ``ok``; ``warn``: it works, and soon may not; ``fail``: it does not work; ``skipped``: it was
            not looked at, or there is nothing to look at.
        found: What was found.
        expected: What was expected, where it was not found.
        advice: What to do about it; a command where there is one.
    """

    what: str
    state: State
    found: str
    expected: str = ""
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The installation that is examined.

    Attributes:
        settings: Places of files and addresses of services.
        objects: Opens the store.
        registry: Opens the registry, which is not made if there is none.
        environ: The environment.
        backbones: Specs of the backbones that serve, see ``ship.backbone_spec``.
        endpoint: URL of the endpoint; None for none.
        clock: Current time, seconds since the epoch.
        monotonic: Monotonic clock in seconds.
    """

    settings: Settings
    objects: Callable[[], ObjectStore]
    registry: Callable[[], Registry]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    backbones: tuple[str, ...] = (BUNDLED,)
    endpoint: str | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


def ok(what: str, found: str) -> Row:
    """A row of what is as it should be."""
    return Row(what=what, state="ok", found=found)


def warn(what: str, found: str, expected: str, advice: str) -> Row:
    """A row of what works, and soon may not."""
    return Row(what=what, state="warn", found=found, expected=expected, advice=advice)


def fail(what: str, found: str, expected: str, advice: str) -> Row:
    """A row of what does not work."""
    return Row(what=what, state="fail", found=found, expected=expected, advice=advice)


def skipped(what: str, found: str, advice: str = "") -> Row:
    """A row of what was not looked at, and why."""
    return Row(what=what, state="skipped", found=found, advice=advice)


def named(names: Iterable[str]) -> str:
    """A few of some names, in order, and how many there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return ", ".join(ordered[:_LISTED]) + more
