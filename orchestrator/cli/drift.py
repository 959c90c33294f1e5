"""The command `ship drift`: whether served pictures are still like those that were held out."""

from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.completion import complete_task
from orchestrator.cli.options import author_options, json_option
from orchestrator.cli.output import Output, format_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.store.documents.audit import Author
    from orchestrator.store.documents.drift import DriftEntry

__all__ = ["drift", "drift_line", "find_drift"]


@click.command()
@click.argument("task", required=False, shell_complete=complete_task)
@click.option("--acknowledge", is_flag=True, help="Take note of the alarm of TASK: it alarms no more.")
@click.option(
    "--accept",
    is_flag=True,
    help="The same, and compare with the last pictures from now on: they are what TASK gets to see.",
)
@author_options
@json_option
@click.pass_obj
def drift(
    output: Output, task: str | None, acknowledge: bool, accept: bool, author: "Author", as_json: bool
) -> None:
    """Show whether the pictures that are served differ from those that TASK, or all tasks, were tuned on.

    The endpoint compares the answers of each champion with those on its held-out pictures: the share of
    unsure ones, their confidence, their distance from the training images, the mix of classes. An alarm
    stays until a person has taken note of it, or another version or rule serves. It is raised in vain once
    in ten million pictures of a task, or more rarely, while shares stay within 0.2 of the held-out ones.

    \b
    Examples:
      ship drift
      ship drift bottle-caps
      ship drift bottle-caps --acknowledge --reason 'the lens was dirty'
      ship drift bottle-caps --accept --reason 'caps of the new supplier'
      ship drift --json | jq -r 'to_entries[] | select(.value.state == "alarm") | .key'
    """
    from orchestrator.errors import ManifestError
    from orchestrator.store.drift import acknowledge as take_note
    from orchestrator.store.drift import describe, read_drift

    if (acknowledge or accept) and task is None:
        raise click.UsageError("--acknowledge and --accept need a TASK")
    if acknowledge or accept:
        assert task is not None, "it was checked"
        if not author.reason.strip():
            raise click.UsageError("say why: --reason TEXT")
        take_note(output.prompt_store(), task, author, accepts=accept)
    entries = read_drift(output.objects())[0].tasks
    if task is not None and task not in entries:
        # One that is not registered is told as such.
        output.registry().versions(task)
        raise ManifestError(
            f"task {task!r} is not watched for drift: no endpoint has answered for its champion yet, or has "
            "not looked since; it does within a minute"
        )
    shown = entries if task is None else {task: entries[task]}
    if as_json:
        output.print_json({name: describe(entry) for name, entry in shown.items()})
    elif task is None:
        _print_all(output, shown)
    else:
        _print_one(output, task, shown[task], describe(shown[task]))


def drift_line(task: str, entry: "DriftEntry") -> str:
    """An alarm in words."""
    alarm = entry.alarm
    assert alarm is not None, "there is one"
    signals = ", ".join(alarm.signals)
    return (
        f"{task}: its pictures drift since {format_time(alarm.time_s)} ({signals}); `ship drift {task}` "
        "shows how"
    )


def _print_all(output: Output, entries: "dict[str, DriftEntry] | Any") -> None:
    if not entries:
        output.print_line("No task is watched yet: a running endpoint watches the tasks that it answers for.")
        return
    table = Table(show_edge=False, header_style="bold")
    for column in ("task", "drift", "pictures", "evidence", "since", "signals"):
        table.add_column(column, overflow="fold")
    order = {"alarm": 0, "acknowledged": 1, "steady": 2, "not watched": 3}
    for task, entry in sorted(entries.items(), key=lambda pair: (order[pair[1].state], pair[0])):
        alarm = entry.alarm
        table.add_row(
            task,
            entry.state,
            str(entry.num_seen),
            f"{min(entry.evidence, 1.0):.0%}" if entry.not_watched is None else "",
            "" if alarm is None else format_time(alarm.time_s),
            escape((", ".join(alarm.signals) if alarm else entry.not_watched) or ""),
        )
    output.out.print(table)


def _print_one(output: Output, task: str, entry: "DriftEntry", told: dict[str, Any]) -> None:
    if entry.not_watched is not None:
        output.print_line(f"{task}: not watched: {entry.not_watched}.")
        return
    output.print_line(
        f"{task}: {entry.state}, {entry.num_seen} pictures seen, evidence {min(entry.evidence, 1.0):.0%} of "
        f"an alarm's, as of {format_time(entry.time_s)}."
    )
    if entry.alarm is not None:
        output.print_line(drift_line(task, entry))
    if entry.acknowledged is not None:
        noted = entry.acknowledged
        word = "accepted" if entry.is_accepted and entry.alarm is None else "acknowledged"
        output.print_line(f"{word} {format_time(noted.time_s)} by {noted.by}: {noted.reason}")
    table = Table(show_edge=False, header_style="bold")
    source = "accepted" if entry.is_accepted else "held out"
    for column in ("share of pictures", source, "lately", "at most"):
        table.add_column(column, overflow="fold")
    for row in told["shares"]:
        recent = "" if row["recent"] is None else f"{row['recent']:.3f}"
        table.add_row(escape(row["meaning"]), f"{row['reference']:.3f}", recent, f"{row['most']:.3f}")
    output.out.print(table)


def find_drift(output: Output) -> "Mapping[str, DriftEntry]":
    """Drift of the tasks that an endpoint watches."""
    from orchestrator.errors import StoreError
    from orchestrator.store.drift import read_drift

    try:
        return read_drift(output.objects())[0].tasks
    except StoreError as error:
        output.err.print(f"whether pictures drift is not known: {error}", markup=False, soft_wrap=True)
        return {}
