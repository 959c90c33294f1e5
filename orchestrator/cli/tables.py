"""Reports and registry listings: tables for people, plain values for scripts."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import format_size, format_time
from orchestrator.registry.fleet import standing_of
from orchestrator.registry.plain_values import bytes_by_part
from orchestrator.report.kinds import KINDS, tally
from orchestrator.train.run.text import describe_accuracy, describe_event
from ship.errors import group_alike

if TYPE_CHECKING:
    from orchestrator.events import Event
    from orchestrator.planning.check import TaskCheck
    from orchestrator.registry.catalog_writer import Served
    from orchestrator.registry.versions import Promotion, TaskInfo, Trials, VersionInfo
    from orchestrator.store.documents.rollout import Change
    from orchestrator.train.job_report import JobReport
    from orchestrator.train.verdicts import Verdict

__all__ = [
    "advice_line",
    "change_line",
    "event_line",
    "memory_line",
    "print_checks",
    "print_report",
    "promotion_json",
    "runs_table",
    "tasks_table",
    "versions_table",
]


def print_checks(console: Console, found: Sequence["TaskCheck"]) -> None:
    """Print the findings on each task's data; failures in red, warnings in yellow."""
    for check in found:
        size = (
            f"{check.num_train} training images of {check.num_classes} classes, {check.num_held_out} held out"
        )
        console.print(f"{check.task}: {size}", markup=False, soft_wrap=True)
        for finding in check.findings:
            word, style = ("FAILED", "red") if finding.failed else ("warning", "yellow")
            console.print(
                f"  {word} {finding.kind}: {finding.message}", style=style, markup=False, soft_wrap=True
            )
            for example in finding.examples:
                console.print(f"    {example}", markup=False, soft_wrap=True)
    num_failed = sum(check.has_failed for check in found)
    num_warned = sum(bool(check.findings) and not check.has_failed for check in found)
    console.print(f"{len(found)} tasks: {num_failed} failed, {num_warned} with warnings.")


def print_report(console: Console, report: "JobReport", num_tasks: int) -> None:
    """Print the counts of a run, the verdict on each task, warnings and failures; last, how many serve."""
    summary = report.summary
    if not summary.tasks and not report.refused:
        console.print(f"Nothing to {_left(report)}: all {num_tasks} tasks are in the store already.")
    else:
        _print_counts(console, report)
    _print_verdicts(console, report)
    warnings = [f"{task}: {warning}" for task, found in report.warnings.items() for warning in found]
    for warning in group_alike(warnings):
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    for failure in group_alike([f"{task}: {cause}" for task, cause in summary.failed.items()]):
        console.print(failure, style="red", markup=False, soft_wrap=True)
    if report.page is not None:
        console.print(f"Report: {report.page}", markup=False, soft_wrap=True)
    if summary.unfinished:
        console.print("Interrupted; run the same command to resume.", style="yellow")
    elif report.verdicts:
        console.print(tally([one.kind for one in report.verdicts]), markup=False, soft_wrap=True)


def _left(report: "JobReport") -> str:
    """The verb for what is left where nothing is to be tuned."""
    return "tune" if report.decided or any(_is_beside(one) for one in report.verdicts) else "do"


def _is_beside(verdict: "Verdict") -> bool:
    """Whether another version serves than the one that is in the store."""
    return verdict.version != verdict.champion


def _print_verdicts(console: Console, report: "JobReport") -> None:
    """The verdicts that are news: not those on what was tuned before, and serves."""
    decided = {one.task for one in report.decided}
    for verdict in report.verdicts:
        is_news = verdict.is_new or not verdict.serves or _is_beside(verdict)
        if verdict.kind != "failed" and is_news and verdict.task not in decided:
            console.print(_verdict_line(verdict), markup=False, soft_wrap=True)
    for one in report.decided:
        told = "serves from now on" if one.promoted else "does not serve"
        line = f"{one.task}: version {one.version} {told}, by the gate: {one.reason}"
        console.print(line, markup=False, soft_wrap=True)


def _print_counts(console: Console, report: "JobReport") -> None:
    summary = report.summary
    refused = f", {len(report.refused)} refused" if report.refused else ""
    console.print(
        f"{len(summary.done)} tuned, {len(report.reused)} in the store already, "
        f"{len(summary.failed)} failed, "
        + (f"{len(summary.cancelled)} cancelled, " if summary.cancelled else "")
        + f"{len(summary.unfinished)} unfinished{refused}."
    )


def _verdict_line(verdict: "Verdict") -> str:
    version = "" if verdict.version is None else f"version {verdict.version} "
    reason = f": {verdict.reason}" if verdict.reason else ""
    if verdict.kind == "unknown":
        said = "whether it serves is not known yet"
    elif verdict.kind != "serves":
        said = f"{version}waits, and nothing serves{reason}"
        if verdict.advice:
            said += f" {KINDS[verdict.kind].capitalize()}: {verdict.advice}."
    elif verdict.version in (None, verdict.champion):
        said = f"version {verdict.champion} serves" + (f"; {verdict.advice}" if verdict.advice else "")
    elif not verdict.is_new and verdict.gate is None:
        said = f"in the store as version {verdict.version}; version {verdict.champion} serves: `ship tune "
        said += f"--promote` asks the gate again, `ship promote {verdict.task} {verdict.version}` does not"
    else:
        said = f"{version}waits, and version {verdict.champion} serves on{reason}"
        if verdict.advice:
            said += f" What it needs: {verdict.advice}."
    accuracy = describe_accuracy(verdict.metrics)
    return f"{verdict.task}: {accuracy}; {said}" if accuracy else f"{verdict.task}: {said}"


def event_line(event: "Event") -> str:
    """One event on one line; below it the details of a failure."""
    line = f"{format_time(event.time_s)}  {event.task}  attempt {event.attempt}  {describe_event(event)}"
    detail = str(event.data.get("detail") or "").rstrip()
    return f"{line}\n{textwrap.indent(detail, '    ')}" if detail else line


def runs_table(runs: Sequence[Mapping[str, Any]], width: int) -> Table:
    """The runs of a home, newest first.

    Args:
        runs: Values of each run, as `ship runs --json` prints them.
        width: Columns of the terminal.
    """
    rows = [
        {
            "run": str(run["run"]),
            "started": format_time(run["started_s"]),
            "state": "at work" if run["is_at_work"] else "over",
            "tasks": _counts(run["counts"], is_over=not run["is_at_work"]) or "none to tune",
            "manifest": str(run["manifest"]),
        }
        for run in runs
    ]
    return _table(rows, width, ("started", "manifest"))


def _counts(counts: Mapping[str, int], *, is_over: bool) -> str:
    """Numbers of tasks by state, in words."""
    left = {"unfinished": sum(counts.get(state, 0) for state in ("leased", "pending"))}
    at_work = {"at work": counts.get("leased", 0), "waiting": counts.get("pending", 0)}
    ended = {state: counts.get(state, 0) for state in ("done", "failed", "cancelled")}
    said = {**ended, **(left if is_over else at_work)}
    return ", ".join(f"{number} {word}" for word, number in said.items() if number)


def tasks_table(infos: Sequence["TaskInfo"], width: int) -> Table:
    """All tasks at a glance: whole names, and as many of the other columns as there is room for."""
    rows = []
    for info in infos:
        standing = standing_of(info)
        metrics = standing.metrics if standing else {}
        # No version serves: it is what would.
        mark = " (challenger)" if info.champion is None and "accuracy" in metrics else ""
        champion, since_s = info.champion.version if info.champion else None, info.serves_since_s
        rows.append(
            {
                "task": info.task,
                "champion": "retired" if info.is_retired else _version(champion),
                "accuracy": _share(metrics.get("accuracy")) + mark,
                "linear probe": _share(metrics.get("probe_accuracy")),
                "challenger": _version(info.challenger.version if info.challenger else None),
                "canary": _canary(info.trials),
                "shadow": _version(info.trials.shadow),
                "latest": _version(info.latest),
                "serves since": "-" if since_s is None else format_time(since_s),
                "tags": ", ".join(f"{name}={value}" for name, value in sorted(info.own_tags.items())),
            }
        )
    if not any(row["tags"] for row in rows):
        rows = [{name: value for name, value in row.items() if name != "tags"} for row in rows]
    dispensable = ("tags", "latest", "shadow", "canary", "serves since", "challenger", "linear probe")
    return _table(rows, width, dispensable)


def versions_table(infos: Sequence["VersionInfo"], width: int) -> Table:
    """All versions of one task, with as many columns as there is room for."""
    rows = [
        {
            "version": _version(info.version),
            "alias": ", ".join(info.aliases),
            "accuracy": _share(info.metrics.get("accuracy")),
            "linear probe": _share(info.metrics.get("probe_accuracy")),
            "levels": f"{info.metrics.get('num_levels', 0):.0f}",
            "digest": (info.digest or "?")[:12],
            "made": format_time(info.created_s),
        }
        for info in infos
    ]
    return _table(rows, width, ("levels", "digest", "made"))


def change_line(change: "Change") -> str:
    """The last change of a task's rollout in words."""
    reason = f": {change.reason}" if change.reason else ""
    return (
        f"Last change: {change.kind}, {format_time(change.time_s)}, by {change.by} on {change.host}{reason}"
    )


def promotion_json(promotion: "Promotion", served: "Served") -> dict[str, Any]:
    """One alias move as plain values, with what the catalog has then."""
    return {
        "task": promotion.task,
        "from": promotion.from_version,
        "to": promotion.to_version,
        "waits": promotion.waits,
        "serves": served.version,
        "problem": served.problem,
    }


def _table(rows: Sequence[Mapping[str, str]], width: int, dispensable: Sequence[str]) -> Table:
    """A table that is no wider than ``width``: it goes without columns, the first dispensable one first.

    What is still too wide is folded, and never cut.
    """
    widths = {name: max(map(len, (name, *(row[name] for row in rows)))) for name in (rows[0] if rows else ())}
    for name in dispensable:
        if sum(widths.values()) + 3 * len(widths) <= width:
            break
        widths.pop(name, None)
    table = Table(show_edge=False, header_style="bold")
    for name in widths:
        is_number = name in ("accuracy", "linear probe", "levels")
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[name]) for name in widths))
    return table


def advice_line(info: "VersionInfo") -> str:
    """What a version that does not serve needs; empty where it serves, or nothing is known."""
    if info.advice is None or info.advice.kind == "serves" or "champion" in info.aliases:
        return ""
    gate = f" (gate: {info.advice.gate})" if info.advice.kind == "withheld" and info.advice.gate else ""
    return KINDS[info.advice.kind] + gate + (f": {info.advice.text}" if info.advice.text else "")


def memory_line(info: "VersionInfo") -> str:
    """Bytes on the device in words; empty where they are not known."""
    sizes = bytes_by_part(info)
    parts = [f"{part.replace('_', ' ')} {format_size(size)}" for part, size in sizes.items() if size]
    return f"{format_size(sum(sizes.values()))} on the device: {', '.join(parts)}" if parts else ""


def _version(version: int | None) -> str:
    return "-" if version is None else f"v{version}"


def _canary(trials: "Trials") -> str:
    canary = trials.canary
    return "-" if canary is None else f"v{canary.version}, {100 * canary.share:.4g}%"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
