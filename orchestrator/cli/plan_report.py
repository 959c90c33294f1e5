"""Reports of a plan: a table for people, plain values for scripts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestrator.cli.output import format_time
from orchestrator.planning.deadlines import forecast_s
from ship.errors import MAX_LISTED_PROBLEMS, group_alike

if TYPE_CHECKING:
    from orchestrator.manifest.model import RefusedTask
    from orchestrator.planning.plan import Plan
    from orchestrator.planning.spec import PlannedTask, TaskSpec

__all__ = ["plan_json", "print_plan", "print_refused"]

MAX_WARNINGS = 20
_SECONDS_AN_HOUR = 3600.0
_NUMBERS = ("images", "epochs", "time", "cost", "prompt KB (about)")


def print_plan(
    console: Console, plan: "Plan", price_per_hour: float | None = None, num_workers: int | None = None
) -> None:
    """Print the tasks and their totals, then the refused tasks with their reasons, then the warnings.

    Args:
        console: Where to.
        plan: The plan.
        price_per_hour: Price of one device; None shows no cost.
        num_workers: Workers that the run would have; None if that is not known.
    """
    _print_tasks(console, plan, price_per_hour)
    console.print(_totals(plan, price_per_hour, num_workers), markup=False, soft_wrap=True)
    console.print(_basis(plan), markup=False, soft_wrap=True)
    print_refused(console, plan.refused)
    _print_unserved(console, plan)
    warnings = group_alike(plan.warnings)
    for warning in warnings[:MAX_WARNINGS]:
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    if len(warnings) > MAX_WARNINGS:
        console.print(f"... and {len(warnings) - MAX_WARNINGS} more (--json has all)", style="yellow")


def print_refused(console: Console, refused: "tuple[RefusedTask, ...]") -> None:
    """Every task that is refused, with its reasons; many that differ by their places alone are one."""
    for task in refused:
        reasons = group_alike(task.reasons)
        more = len(reasons) - MAX_LISTED_PROBLEMS
        shown = [*reasons[:MAX_LISTED_PROBLEMS], *([f"... and {more} more reasons"] if more > 0 else [])]
        for reason in shown:
            console.print(f"refused {task.name}: {reason}", style="red", markup=False, soft_wrap=True)


def plan_json(
    plan: "Plan", price_per_hour: float | None = None, num_workers: int | None = None
) -> dict[str, Any]:
    """The plan as plain values."""
    return {
        "backbone": {"name": plan.backbone, "fingerprint": plan.backbone_fingerprint},
        "num_to_tune": len(plan.to_tune),
        "num_to_reuse": len(plan.to_reuse),
        "num_to_refuse": len(plan.refused),
        "estimates": "unknown" if plan.speed is None else "learned",
        "speed": None if plan.speed is None else asdict(plan.speed),
        "estimate_s": plan.estimate_s,
        "estimate_bytes": plan.estimate_bytes,
        "num_workers": num_workers,
        "wall_s": None if num_workers is None else forecast_s(plan.to_tune, num_workers),
        "device_hours": plan.device_hours,
        "price_per_hour": price_per_hour,
        "cost": _cost(plan.estimate_s, price_per_hour),
        "warnings": list(plan.warnings),
        "tasks": [
            *(_task_json(task, price_per_hour) for task in plan.tasks),
            *({**asdict(task), "action": "refuse"} for task in plan.refused),
        ],
    }


def _print_tasks(console: Console, plan: "Plan", price_per_hour: float | None) -> None:
    """A line a task. Not a table of rich's, which takes a millisecond a line: there may be ten thousand."""
    cost = [] if price_per_hour is None else ["cost"]
    head = [
        "task",
        "action",
        "images",
        "kind",
        "head",
        "augment",
        "epochs",
        "search",
        "time",
        *cost,
        "prompt KB (about)",
        "key",
    ]
    rows = [
        [
            task.spec.name,
            task.action,
            str(task.spec.num_images),
            *(_choice(task.spec, name) for name in ("kind", "head", "augment")),
            str(task.spec.config.epochs),
            _candidates(task.spec),
            _about(task.estimate_s),
            *(_number(_cost(task.estimate_s, price_per_hour), 2) for _ in cost),
            f"{task.estimate_bytes / 1024:.0f}",
            task.spec.key[:12],
        ]
        for task in plan.tasks
    ]
    refused = [[task.name, "refuse", *("" for _ in head[2:])] for task in plan.refused]
    widths = [max(map(len, column)) for column in zip(head, *rows, *refused, strict=True)]
    console.out(_line(head, widths, head), style="bold", highlight=False)
    console.out("-" * (sum(widths) + 2 * len(widths) - 2), highlight=False)
    for lines, style in ((rows, None), (refused, "red")):
        if lines:
            text = "\n".join(_line(cells, widths, head) for cells in lines)
            console.out(text, style=style, highlight=False)


def _print_unserved(console: Console, plan: "Plan") -> None:
    """Tasks whose artifact in the store does not serve."""
    lines = [
        f"{task.spec.name}: in the store as version {task.version}; "
        + ("nothing serves" if task.champion is None else f"version {task.champion} serves")
        for task in plan.to_reuse
        if task.version is not None and task.version != task.champion
    ]
    for line in lines[:MAX_WARNINGS]:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    if len(lines) > MAX_WARNINGS:
        console.print(f"... and {len(lines) - MAX_WARNINGS} more (--json has all)", style="yellow")
    if lines:
        console.print("`ship tune --promote` lets the gate decide on them again.", markup=False)


def _line(cells: Sequence[str], widths: Sequence[int], head: Sequence[str]) -> str:
    padded = [
        cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
        for cell, width, column in zip(cells, widths, head, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _totals(plan: "Plan", price_per_hour: float | None, num_workers: int | None) -> str:
    refused = f", {len(plan.refused)} refused" if plan.refused else ""
    counts = f"{len(plan.to_tune)} to tune, {len(plan.to_reuse)} in the store already{refused}"
    cost = "" if price_per_hour is None else f", cost {_number(_cost(plan.estimate_s, price_per_hour), 2)}"
    return f"{counts}; {_time(plan, num_workers)}{cost}, {plan.estimate_bytes / 2**20:.1f} MB to store"


def _time(plan: "Plan", num_workers: int | None) -> str:
    """Time of the wall clock, and that of one worker."""
    wall_s = None if num_workers is None else forecast_s(plan.to_tune, num_workers)
    if plan.estimate_s is None:
        return "time unknown"
    if wall_s is None:
        return f"about {_about(plan.estimate_s)} of tuning on one worker"
    workers = "1 worker" if num_workers == 1 else f"{num_workers} workers"
    return f"about {_about(wall_s)} with {workers} ({_about(plan.estimate_s)} of tuning)"


def _about(seconds: float | None) -> str:
    """A length of time in the unit that suits it."""
    if seconds is None:
        return "unknown"
    if seconds < 60.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / _SECONDS_AN_HOUR:.1f} h"


def _basis(plan: "Plan") -> str:
    if plan.speed is None:
        return "Time is unknown: the store knows of no tuning on this backbone yet; it learns from each."
    return (
        f"Time is learned from {plan.speed.num_runs} past tunings on this backbone: "
        f"{plan.speed.images_per_s:.0f} training images a second on one device."
    )


def _task_json(task: "PlannedTask", price_per_hour: float | None) -> dict[str, Any]:
    values = asdict(task)
    spec = values.pop("spec")
    terms = spec.pop("terms")
    return {
        **spec,
        "priority": terms["priority"],
        "deadline": None if terms["deadline_s"] is None else format_time(terms["deadline_s"]),
        "budget_s": terms["budget_s"],
        **values,
        "reasons": [],
        "device_hours": _hours(task.estimate_s),
        "cost": _cost(task.estimate_s, price_per_hour),
    }


def _candidates(spec: "TaskSpec") -> str:
    return "-" if spec.search is None else f"{len(spec.search.candidates(spec.config))} candidates"


def _choice(spec: "TaskSpec", name: str) -> str:
    """The setting, or `auto` where the search chooses among several."""
    is_searched = (
        spec.search is not None and len({*getattr(spec.search, name), getattr(spec.config, name)}) > 1
    )
    return "auto" if is_searched else str(getattr(spec.config, name))


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / _SECONDS_AN_HOUR


def _cost(seconds: float | None, price_per_hour: float | None) -> float | None:
    hours = _hours(seconds)
    return None if hours is None or price_per_hour is None else hours * price_per_hour


def _number(value: float | None, num_digits: int) -> str:
    return "unknown" if value is None else f"{value:.{num_digits}f}"
