"""The command `ship gc`: removes unreferenced objects from the store."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from orchestrator.cli.options import json_option
from orchestrator.cli.output import Output, format_size
from orchestrator.durations import format_duration, parse_duration

if TYPE_CHECKING:
    from orchestrator.store.garbage import Garbage

__all__ = ["garbage_json", "gc", "print_garbage"]

# A publication under way may take this long from its first object to its last.
MIN_GC_AGE_S = 3600


@click.command()
@click.option("--dry-run", is_flag=True, help="List the objects that would be removed, and remove nothing.")
@click.option(
    "--older-than",
    "age",
    default="1d",
    show_default=True,
    metavar="AGE",
    help="Keep younger objects: 90m, 12h, 1d, 2w; at least 1h.",
)
@json_option
@click.pass_obj
def gc(output: Output, dry_run: bool, age: str, as_json: bool) -> None:
    """Remove unreferenced objects from the store.

    They are artifacts that no publication, no version in the registry and no catalog entry names, snapshots
    of tunings, and leftovers of killed writers; all of them only if older than AGE. Refuses if the registry
    cannot be read.

    \b
    Examples:
      ship gc --dry-run
      ship --store s3://models/ship gc --older-than 2w --json | jq .num_bytes
    """
    from orchestrator.store.collector import Collector
    from orchestrator.store.objects.open import open_objects

    age_s, now_s = _gc_age(age), time.time()
    collector = Collector(open_objects(output.settings().store), output.registry())
    with output.err.status("looking through the store"):
        found = collector.find(age_s)
        gone = [] if dry_run else collector.remove(found)
    if as_json:
        output.print_json(garbage_json(found, gone, dry_run=dry_run, now_s=now_s))
    else:
        print_garbage(output.out, found, gone, dry_run=dry_run, now_s=now_s)


def _gc_age(text: str) -> float:
    try:
        age_s = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from None
    if age_s < MIN_GC_AGE_S:
        raise click.BadParameter(
            f"{text!r}: expected at least 1h: something younger may be about to be published",
            param_hint="--older-than",
        )
    return age_s


def print_garbage(
    console: Console, found: Sequence["Garbage"], gone: Sequence["Garbage"], *, dry_run: bool, now_s: float
) -> None:
    """Print the removed objects, or with a line each the ones that a dry run would remove."""
    if dry_run:
        for one in found:
            age = format_duration(now_s - one.modified_s)
            line = f"{one.kind} {one.name}: {format_size(one.num_bytes)}, {age} old: {one.reason}"
            console.print(line, markup=False, soft_wrap=True)
    shown = found if dry_run else gone
    done = "would be removed" if dry_run else "removed"
    console.print(f"{_num_objects(shown)} objects, {format_size(_num_bytes(shown))} {done}.")
    if not dry_run and len(gone) < len(found):
        console.print(f"{len(found) - len(gone)} were written again meanwhile and stay.")


def garbage_json(
    found: Sequence["Garbage"], gone: Sequence["Garbage"], *, dry_run: bool, now_s: float
) -> dict[str, Any]:
    """Objects that were or would be removed, as plain values."""
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
