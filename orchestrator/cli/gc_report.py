"""How `ship gc` shows what it found: lines for people, plain values for scripts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestrator.durations import format_duration

if TYPE_CHECKING:
    from orchestrator.store.garbage import Garbage

__all__ = ["garbage_json", "print_garbage"]

_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def print_garbage(
    console: Console, found: Sequence["Garbage"], gone: Sequence["Garbage"], *, dry_run: bool, now_s: float
) -> None:
    """What went, or would go; one line each if nothing was removed yet."""
    if dry_run:
        for one in found:
            age = format_duration(now_s - one.modified_s)
            line = f"{one.kind} {one.name}: {_size(one.num_bytes)}, {age} old: {one.reason}"
            console.print(line, markup=False, soft_wrap=True)
    shown = found if dry_run else gone
    done = "would be removed" if dry_run else "removed"
    console.print(f"{_num_objects(shown)} objects, {_size(_num_bytes(shown))} {done}.")
    if not dry_run and len(gone) < len(found):
        console.print(f"{len(found) - len(gone)} were written again meanwhile and stay.")


def garbage_json(
    found: Sequence["Garbage"], gone: Sequence["Garbage"], *, dry_run: bool, now_s: float
) -> dict[str, Any]:
    """What went, or would go, as plain values."""
    shown = found if dry_run else gone
    return {
        "dry_run": dry_run,
        "num_objects": _num_objects(shown),
        "num_bytes": _num_bytes(shown),
        "garbage": [
            {
                "kind": one.kind,
                "name": one.name,
                "num_objects": len(one.keys),
                "num_bytes": one.num_bytes,
                "age_s": round(now_s - one.modified_s),
                "reason": one.reason,
            }
            for one in shown
        ],
    }


def _num_objects(garbage: Sequence["Garbage"]) -> int:
    return sum(len(one.keys) for one in garbage)


def _num_bytes(garbage: Sequence["Garbage"]) -> int:
    return sum(one.num_bytes for one in garbage)


def _size(num_bytes: int) -> str:
    size, unit = float(num_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{num_bytes} bytes" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
