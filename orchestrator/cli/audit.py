"""Commands on who decided: audit, approve, withhold, approvals."""

import sys
import time
from itertools import islice
from typing import TYPE_CHECKING

import click

from orchestrator.cli.audit_tables import damaged_line, entry_line, pending_line
from orchestrator.cli.completion import complete_task, task_argument
from orchestrator.cli.options import author_options, json_option
from orchestrator.cli.output import EXIT_FAILED, Output
from orchestrator.cli.served import print_promotion
from orchestrator.durations import parse_time
from orchestrator.registry.plain_values import damaged_json, entry_json, pending_json

if TYPE_CHECKING:
    from orchestrator.store.documents.audit import Author, Pin

__all__ = ["COMMANDS"]


@click.command()
@click.argument("task", required=False, shell_complete=complete_task)
@click.option(
    "--since", metavar="TIME", help="Entries since then: 90m, 7d, 2026-11-01, 2026-11-01T06:00+01:00."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most entries to print."
)
@click.option("--verify", is_flag=True, help="Look for gaps and changes in the whole log instead.")
@click.option(
    "--known",
    multiple=True,
    metavar="NUMBER:DIGEST",
    help="With --verify: an entry as an earlier --verify printed it; repeatable.",
)
@json_option
@click.pass_obj
def audit(
    output: Output,
    task: str | None,
    since: str | None,
    limit: int,
    verify: bool,
    known: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show who changed what, when and why, of TASK or of all, the last change first.

    Promotions, rollbacks, canaries, shadows, decisions of the gate, moves in MLflow's own page, approvals,
    tokens, garbage collections. An entry that cannot be read is listed as damaged, whatever is asked for: it
    may be of TASK. Each entry holds the digest of the one before. --verify reads all of them and the
    documents that they tell of; the exit status is 1 if anything is missing or changed, and each place is
    named. Keep the line that it prints outside of the store, and give it to --known later: that proves that
    nothing up to there was written anew.

    \b
    Examples:
      ship audit bottle-caps
      ship audit --since 7d --json | jq -r '.[] | select(.action == "promote") | .by'
      ship audit --verify
      ship audit --verify --known 57:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    from orchestrator.names import check_task_name
    from orchestrator.store.audit.log import AuditLog
    from orchestrator.store.audit.search import Wanted, search
    from orchestrator.store.documents.audit import DamagedEntry

    if known and not verify:
        raise click.UsageError("--known goes with --verify")
    pins = [_read_pin(text) for text in known]
    if task is not None:
        check_task_name(task)
    if verify:
        _verify(output, pins, as_json)
        return
    since_s = None if since is None else _read_time(since)
    wanted = Wanted(task=task, since_s=since_s)
    found = list(islice(search(AuditLog(output.prompt_store()), wanted), limit))
    if as_json:
        output.print_json(
            [damaged_json(one) if isinstance(one, DamagedEntry) else entry_json(one) for one in found]
        )
        return
    for one in found:
        output.print_line(damaged_line(one) if isinstance(one, DamagedEntry) else entry_line(one))
    if not found:
        output.print_line("No such entry in the audit log of this store.")


@click.command()
@task_argument
@click.argument("version", type=click.IntRange(min=1), required=False)
@click.option("--reject", is_flag=True, help="Drop the request instead.")
@author_options
@json_option
@click.pass_obj
def approve(
    output: Output, task: str, version: int | None, reject: bool, author: "Author", as_json: bool
) -> None:
    """Make the promotion of TASK that waits for an approval; not by the person who asked for it.

    With VERSION only if it is the one that waits: another may be asked for while you look at it.
    A request is void once another version than the one that it was made against serves. Whoever asked may
    take it back with --reject.

    \b
    Examples:
      ship approve bottle-caps 4 --reason 'seen on line 3'
      ship approve bottle-caps --as maria
      ship approve bottle-caps --reject --reason 'scratches are missed'
    """
    requests = output.requests(author)
    if not reject:
        print_promotion(output, requests.approve(task, version), as_json)
        return
    dropped = requests.reject(task, version)
    if as_json:
        output.print_json({"task": task, "rejected": dropped.version})
    else:
        output.print_line(f"{task}: the request to promote version {dropped.version} is dropped.")


@click.command()
@task_argument
@click.argument("version", type=click.IntRange(min=1))
@author_options
@json_option
@click.pass_obj
def withhold(output: Output, task: str, version: int, author: "Author", as_json: bool) -> None:
    """Decide that VERSION of TASK is not to serve: it is no challenger any more, and no request for it waits.

    It stays a version, and `ship promote TASK VERSION` takes it all the same.

    \b
    Example:
      ship withhold bottle-caps 4 --reason 'breaks the dents of line 2'
    """
    output.requests(author).withhold(task, version)
    if as_json:
        output.print_json({"task": task, "withheld": version})
    else:
        output.print_line(f"{task}: version {version} is withheld; what serves is as it was.")


@click.command()
@click.option(
    "--require",
    multiple=True,
    metavar="PATTERN",
    help="Let promotions of these tasks wait for a second person: a name, '*'; repeatable.",
)
@click.option("--lift", multiple=True, metavar="PATTERN", help="Take such a pattern away; repeatable.")
@author_options
@json_option
@click.pass_obj
def approvals(
    output: Output,
    require: tuple[str, ...],
    lift: tuple[str, ...],
    author: "Author",
    as_json: bool,
) -> None:
    """Show which tasks need a second person's approval, and the promotions that wait; or change the former.

    A manifest asks for it by `approvals: 1`, of a task or in `defaults`, and `ship tune` takes that over; a
    pattern of the store holds whatever a manifest says.

    \b
    Examples:
      ship approvals
      ship approvals --require 'weld-*' --reason 'audit of 2026'
      ship approvals --lift 'weld-*'
    """
    from orchestrator.store.approvals import Approvals
    from orchestrator.store.audit.log import AuditLog

    store = output.prompt_store()
    rules = Approvals(store, AuditLog(store))
    found = rules.change_patterns(require, lift, author) if require or lift else rules.read()
    pending = output.requests().pending(task for task, _ in store.scan_rollouts())
    if as_json:
        waits = [{"task": task, **(pending_json(rollout) or {})} for task, rollout in pending.items()]
        output.print_json({"patterns": list(found.patterns), "tasks": sorted(found.tasks), "pending": waits})
        return
    output.print_line(f"Patterns of the store: {', '.join(found.patterns) or 'none'}.")
    output.print_line(f"Tasks whose manifest asks for it: {', '.join(sorted(found.tasks)) or 'none'}.")
    for rollout in pending.values():
        output.print_line(pending_line(rollout))


def _verify(output: Output, known: "list[Pin]", as_json: bool) -> None:
    from dataclasses import asdict

    from orchestrator.store.audit.verification import verify

    with output.err.status("reading the audit log"):
        found = verify(output.prompt_store(), known)
    if as_json:
        output.print_json(asdict(found))
    else:
        for one in found.breaks:
            output.print_line(f"{one.place}: {one.kind}: {one.message}")
        if found.num_waiting:
            output.print_line(f"{found.num_waiting} changes wait for the log: `ship sync` writes them.")
        if found.num_unlogged_tasks:
            output.print_line(f"{found.num_unlogged_tasks} tasks were changed last before there was a log.")
        state = f"{len(found.breaks)} breaks" if found.breaks else "nothing is missing or changed"
        output.print_line(f"{found.head.sequence} entries; {state}.")
        output.print_line(f"Last entry: {found.head.sequence}:{found.head.digest}")
    if found.breaks:
        sys.exit(EXIT_FAILED)


def _read_pin(text: str) -> "Pin":
    from orchestrator.store.documents.audit import EXPECTED_PIN, Pin

    if (pin := Pin.parse(text)) is None:
        raise click.BadParameter(f"{text[:100]!r}: {EXPECTED_PIN}", param_hint="--known")
    return pin


def _read_time(text: str) -> float:
    try:
        return parse_time(text, time.time())
    except ValueError as error:
        raise click.BadParameter(f"{text[:80]!r}: {error}", param_hint="--since") from None


COMMANDS = (audit, approve, withhold, approvals)
