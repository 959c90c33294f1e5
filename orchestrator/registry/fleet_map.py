"""A map of the fleet: accuracy by two tags, such as plant and line."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.registry.fleet import accuracy_of

if TYPE_CHECKING:
    from orchestrator.registry.versions import TaskInfo

__all__ = ["OTHERS", "choose_axes", "heat_map"]

# In each direction; the rest is one more.
_MAX_STEPS = 30
OTHERS = "(others)"


def choose_axes(
    tags: Iterable[Mapping[str, str]], across: str | None, down: str | None
) -> tuple[str, str] | None:
    """The two tags of a heat map: those that are named, else plant and line, else the two most frequent.

    Args:
        tags: Tags of each task.
        across: Name of the one whose values are columns, if it is named.
        down: Name of the one whose values are rows.

    Returns:
        Both names; None if fewer than two are known.
    """
    counts = Counter(name for one in tags for name in one)
    frequent = sorted(counts, key=lambda name: (-counts[name], name))
    preferred = [name for name in ("line", "plant") if name in counts] + frequent
    chosen_across = across or next((name for name in preferred if name != down), None)
    chosen_down = down or next(
        (name for name in ("plant", *preferred) if name in counts and name != chosen_across), None
    )
    return None if chosen_across is None or chosen_down is None else (chosen_across, chosen_down)


def heat_map(infos: Sequence["TaskInfo"], across: str, down: str) -> dict[str, Any]:
    """Accuracy by two tags: for each pair of values the worst task, the mean, and how many tasks there are.

    Args:
        infos: The tasks; those without one of the tags, and retired ones, are left out.
        across: Tag whose values are the columns.
        down: Tag whose values are the rows.

    Returns:
        JSON values: ``columns`` and ``rows``, each at most 30 with the rest as one more, and ``cells``, by
        row, None where there is no task.
    """
    tagged = [(info, info.own_tags) for info in infos if not info.is_retired]
    placed = [(info, tags[down], tags[across]) for info, tags in tagged if down in tags and across in tags]
    rows, row_of = _steps([row for _, row, _ in placed])
    columns, column_of = _steps([column for _, _, column in placed])
    cells: dict[tuple[str, str], list[TaskInfo]] = defaultdict(list)
    for info, row, column in placed:
        cells[row_of(row), column_of(column)].append(info)
    return {
        "across": across,
        "down": down,
        "columns": columns,
        "rows": rows,
        "cells": [[_cell(cells.get((row, column), ())) for column in columns] for row in rows],
        "num_without": len(tagged) - len(placed),
    }


def _steps(values: Sequence[str]) -> tuple[list[str], Callable[[str], str]]:
    """Values of an axis in order, the most frequent ones if there are many; and the step of a value."""
    counts = Counter(values)
    kept = {value for value, _ in counts.most_common(_MAX_STEPS)}
    others = [OTHERS] if len(counts) > len(kept) else []
    return sorted(kept, key=_natural) + others, lambda value: value if value in kept else OTHERS


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Line 2 before line 10."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+|[0-9]+", text)
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts]


def _cell(infos: Sequence["TaskInfo"]) -> dict[str, Any] | None:
    if not infos:
        return None
    measured = [(accuracy, info.task) for info in infos if (accuracy := accuracy_of(info)) is not None]
    worst, task = min(measured, default=(None, None))
    return {
        "tasks": len(infos),
        "idle": sum(info.champion is None for info in infos),
        "worst": worst,
        "worst_task": task,
        "mean": sum(accuracy for accuracy, _ in measured) / len(measured) if measured else None,
    }
