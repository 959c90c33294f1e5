"""Suites of tasks: what each holds, a task's problem, and the source of its pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ship.backbone import Backbone
from tests.benchmarks.accuracy import industrial, tasks
from tests.benchmarks.accuracy.problem import Problem, make_problem, make_vtab_problem

__all__ = ["SUITES", "Suite", "find_problem", "source_of"]

Suite = Literal["small", "industrial"]
SUITES: dict[str, list[str]] = {"small": list(tasks.TASKS), "industrial": list(industrial.TASKS)}


def find_problem(name: str, seed: int, backbone: Backbone, folders: Mapping[str, Path]) -> Problem:
    """Splits of a task.

    Args:
        name: A task of any suite, or of VTAB-1k.
        seed: Seed of the training pictures.
        backbone: Backbone that sees them.
        folders: Folders of the tasks that are read from one.
    """
    if name in tasks.TASKS:
        return make_problem(tasks.TASKS[name](seed), seed, backbone)
    if name in industrial.TASKS:
        return make_problem(industrial.TASKS[name](seed, folders.get(name)), seed, backbone)
    return make_vtab_problem(folders[name], backbone)


def source_of(task: str) -> str:
    """Source of a task's pictures. Tasks of one source are no independent evidence."""
    if task in tasks.SURFACES:
        return "surfaces"
    return task if task.startswith("vtab-") else task.split("-")[0]
