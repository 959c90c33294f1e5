"""Forecast of a run: its end and its late tasks, in the ledger's order, each with its estimated duration."""

import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.durations import describe_seconds

if TYPE_CHECKING:
    from orchestrator.planning.spec import PlannedTask

__all__ = ["find_late", "forecast_s"]


def forecast_s(tasks: Sequence["PlannedTask"], num_workers: int) -> float | None:
    """Seconds from now until the last task is tuned; None if the speed is unknown.

    Args:
        tasks: Tasks to tune.
        num_workers: Workers of the pool.
    """
    if any(task.estimate_s is None for task in tasks):
        return None
    return max((end_s for _, end_s in _ends_in_turn(tasks, num_workers)), default=0.0)


def find_late(tasks: Sequence["PlannedTask"], *, num_workers: int | None, now_s: float) -> list[str]:
    """Warnings for tasks that will miss their deadline.

    Args:
        tasks: Tasks to tune.
        num_workers: Workers of the pool. If it is not known yet, only tasks that would be late if they
            started now have a warning, for they are late with any number.
        now_s: Seconds since the epoch.
    """
    due = [task for task in tasks if task.spec.terms.deadline_s is not None]
    if not due:
        return []
    passed = [task for task in due if _left_s(task, now_s) <= 0.0]
    warnings = [
        f"task {task.spec.name}: its deadline passed {describe_seconds(-_left_s(task, now_s))} ago"
        for task in passed
    ]
    if any(task.estimate_s is None for task in tasks):
        unchecked = len(due) - len(passed)
        advice = "the speed is not known before a first task is tuned"
        return (
            [*warnings, f"deadlines of {unchecked} tasks are not checked: {advice}"]
            if unchecked
            else warnings
        )
    ends_s = _ends_alone(tasks) if num_workers is None else _ends_in_turn(tasks, num_workers)
    case = "if it started now" if num_workers is None else f"with {num_workers} workers"
    return warnings + [
        f"task {task.spec.name}: its deadline is in {describe_seconds(_left_s(task, now_s))}, but {case} "
        f"it is expected in {describe_seconds(end_s)}; raise its priority, add workers, or tune fewer epochs"
        for task, end_s in ends_s
        if task.spec.terms.deadline_s is not None and 0.0 < _left_s(task, now_s) < end_s
    ]


def _left_s(task: "PlannedTask", now_s: float) -> float:
    assert task.spec.terms.deadline_s is not None, "the caller selects tasks with a deadline"
    return task.spec.terms.deadline_s - now_s


def _ends_alone(tasks: Sequence["PlannedTask"]) -> Iterable[tuple["PlannedTask", float]]:
    return [(task, task.estimate_s or 0.0) for task in tasks]


def _ends_in_turn(tasks: Sequence["PlannedTask"], num_workers: int) -> Iterable[tuple["PlannedTask", float]]:
    """End of each task in seconds from now, if each free worker takes the next task."""
    free_s = [0.0] * min(num_workers, len(tasks))
    for task in sorted(
        tasks, key=lambda task: (*task.spec.terms.order, -(task.estimate_s or 0.0), task.spec.name)
    ):
        end_s = heapq.heappop(free_s) + (task.estimate_s or 0.0)
        heapq.heappush(free_s, end_s)
        yield task, end_s
