"""The command `ship gc`: marks unreferenced objects of the store, and removes those marked before."""

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from orchestrator.cli.options import author_options, json_option
from orchestrator.cli.output import Output, format_size
from orchestrator.durations import describe_seconds, format_duration, parse_duration
from orchestrator.settings import BYTES_A_GB

if TYPE_CHECKING:
    from orchestrator.store.documents.audit import Author
    from orchestrator.store.garbage.finding import Garbage

__all__ = ["garbage_json", "gc", "print_garbage"]

# A publication under way may take this long from its first object to its last.
MIN_GC_AGE_S = 3600


@click.command()
@click.option("--dry-run", is_flag=True, help="List the objects that were found; mark and remove nothing.")
@click.option(
    "--older-than",
    "age",
    default="1d",
    show_default=True,
    metavar="AGE",
    help="Keep younger objects: 90m, 12h, 1d, 2w; at least 1h.",
)
@click.option(
    "--marked-for",
    "wait",
    default="1d",
    show_default=True,
    metavar="AGE",
    help="Remove only objects that an earlier run marked at least this long ago; at least 1h.",
)
@click.option(
    "--keep-days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.0),
    help="Remove pictures that endpoints kept longer ago, with their labels.",
)
@click.option(
    "--keep-pictures",
    default=1000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Most such pictures of a task; the oldest go first, those with a label last.",
)
@click.option(
    "--keep-memory",
    type=click.FloatRange(min=0.0),
    metavar="GB",
    help="Most that such pictures of a task take [no limit].",
)
@author_options
@json_option
@click.pass_obj
def gc(
    output: Output,
    dry_run: bool,
    age: str,
    wait: str,
    keep_days: float,
    keep_pictures: int,
    keep_memory: float | None,
    author: "Author",
    as_json: bool,
) -> None:
    """Mark unreferenced objects of the store, and remove those that an earlier run marked.

    They are artifacts that no publication, no version in the registry and no catalog entry names, decision
    rules that no rollout names, snapshots of tunings, and leftovers of killed writers; all of them only if
    older than AGE, by the store's clock.
    Pictures that endpoints kept (`ship serve --keep`) go at once when they are too old or too many.
    The first run marks and says when they may go; run it again then, such as once a day. Refuses if the
    registry cannot be read.

    \b
    Examples:
      ship gc --dry-run
      ship --store s3://models/ship gc --older-than 2w --json | jq .num_bytes
    """
    from orchestrator.store.garbage.collector import DAY_S, Collector
    from orchestrator.store.kept.pictures import KeepLimits

    age_s, marked_for_s = _gc_age(age, "--older-than"), _gc_age(wait, "--marked-for")
    collector = Collector(output.objects(), output.registry())
    with output.err.status("looking through the store"):
        found = collector.find(age_s)
        gone = [] if dry_run else collector.remove(found, marked_for_s, author)
        names = {one.name for one in gone}
        left = [one for one in found if one.name not in names]
        waits_s = collector.waits_s(left, marked_for_s)
        num_bytes = sys.maxsize if keep_memory is None else round(keep_memory * BYTES_A_GB)
        limits = KeepLimits(pictures=keep_pictures, num_bytes=num_bytes, age_s=keep_days * DAY_S)
        kept = collector.find_kept(limits)
        if not dry_run:
            collector.remove_kept(kept, author)
    shown = [*(found if dry_run else gone), *kept]
    waits_s += [0.0] * len(kept) if dry_run else []
    left += kept if dry_run else []
    if as_json:
        output.print_json(garbage_json(shown, left, waits_s, dry_run=dry_run, now_s=collector.now_s))
    else:
        print_garbage(output.out, shown, left, waits_s, dry_run=dry_run, now_s=collector.now_s)


def _gc_age(text: str, option: str) -> float:
    try:
        age_s = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    if age_s < MIN_GC_AGE_S:
        raise click.BadParameter(
            f"{text!r}: expected at least 1h: something younger may be about to be published",
            param_hint=option,
        )
    return age_s


def print_garbage(
    console: Console,
    shown: Sequence["Garbage"],
    left: Sequence["Garbage"],
    waits_s: Sequence[float],
    *,
    dry_run: bool,
    now_s: float,
) -> None:
    """Print the removed objects and how long the others wait; with a line each what a dry run has found."""
    if dry_run:
        for one, wait_s in zip(shown, waits_s, strict=True):
            age = format_duration(now_s - one.modified_s)
            line = f"{one.kind} {one.name}: {format_size(one.num_bytes)}, {age} old: {one.reason}"
            console.print(f"{line}; {_when(wait_s)}", markup=False, soft_wrap=True)
    done = "found; nothing was marked or removed" if dry_run else "removed"
    console.print(f"{_num_objects(shown)} objects, {format_size(_num_bytes(shown))} {done}.")
    if left and not dry_run:
        console.print(
            f"{_num_objects(left)} objects, {format_size(_num_bytes(left))} are marked; run `ship gc` again "
            f"in {describe_seconds(max(waits_s))} to remove those that nothing names by then."
        )


def garbage_json(
    shown: Sequence["Garbage"],
    left: Sequence["Garbage"],
    waits_s: Sequence[float],
    *,
    dry_run: bool,
    now_s: float,
) -> dict[str, Any]:
    """Objects that were removed or found by a dry run, and those left for a later run, as plain values."""
    return {
        "dry_run": dry_run,
        "num_objects": _num_objects(shown),
        "num_bytes": _num_bytes(shown),
        "garbage": [_one_json(one, now_s) for one in shown],
        "left": [
            {**_one_json(one, now_s), "wait_s": math.ceil(wait_s)}
            for one, wait_s in zip(left, waits_s, strict=True)
        ],
    }


def _one_json(one: "Garbage", now_s: float) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "num_objects": len(one.keys),
        "num_bytes": one.num_bytes,
        "age_s": round(now_s - one.modified_s),
        "reason": one.reason,
    }


def _when(wait_s: float) -> str:
    return f"may go {describe_seconds(wait_s)} after a run has marked it" if wait_s else "may go now"


def _num_objects(garbage: Sequence["Garbage"]) -> int:
    return sum(len(one.keys) for one in garbage)


def _num_bytes(garbage: Sequence["Garbage"]) -> int:
    return sum(one.num_bytes for one in garbage)
