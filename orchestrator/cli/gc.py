"""The command that removes from the store what nobody needs: parses, calls, prints."""

import time

import click

from orchestrator.cli.output import Output
from orchestrator.durations import parse_duration

__all__ = ["gc"]

# A publication under way may take this long from its first object to its last.
MIN_GC_AGE_S = 3600


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would go, and remove nothing.")
@click.option(
    "--older-than",
    "age",
    default="1d",
    show_default=True,
    metavar="AGE",
    help="Younger things stay: 90m, 12h, 1d, 2w; at least 1h.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def gc(output: Output, dry_run: bool, age: str, as_json: bool) -> None:
    """Remove from the store what nobody needs any more.

    That is artifacts that no publication, no version in the registry and no catalog entry names, snapshots of
    tunings, and what writers that were killed left behind; all of it only if it is older than AGE. Refuses if
    the registry cannot be asked.

    \b
    Examples:
      ship gc --dry-run
      ship --store s3://models/ship gc --older-than 2w --json | jq .num_bytes
    """
    from orchestrator.cli.gc_report import garbage_json, print_garbage
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
