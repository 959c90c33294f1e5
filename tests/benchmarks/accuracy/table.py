"""Table of the accuracy benchmark: means, their intervals and ranks, from rows of ``comparison.run``."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from tests.benchmarks.accuracy.tasks import SURFACES

__all__ = ["describe", "interval", "mean_ranks", "render"]


def interval(values: Sequence[float]) -> float:
    """Half of the 95% interval of a mean, by Student's t; nan for a single value."""
    if len(values) < 2:
        return math.nan
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * spread


def mean_ranks(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Each method's rank by mean accuracy, 1 for the best, averaged over the tasks that all methods did."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    means = {(row["task"], row["method"]): float(np.mean(row["accuracies"])) for row in rows}
    tasks = [
        task
        for task in dict.fromkeys(row["task"] for row in rows)
        if all((task, method) in means for method in methods)
    ]
    if not tasks:
        return {}
    # Accuracies that differ by less than rounding share a rank.
    table = np.array([[-round(means[task, method], 9) for method in methods] for task in tasks])
    ranks = stats.rankdata(table, axis=1).mean(axis=0)
    return {method: float(rank) for method, rank in zip(methods, ranks, strict=True)}


def describe(accuracies: Sequence[float]) -> str:
    """Mean and half of its interval."""
    return f"{float(np.mean(accuracies)):.3f} +- {interval(accuracies):.3f}"


def render(rows: Sequence[dict[str, Any]]) -> str:
    """A table: tasks down, methods across, means below."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["task"], row["method"]): row["accuracies"] for row in rows}
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = [_line("task", methods)]
    for task in tasks:
        lines.append(_line(task, [describe(cells[task, m]) if (task, m) in cells else "-" for m in methods]))
    surfaces = [task for task in tasks if task in SURFACES]
    for name, members in {"mean": tasks, "mean of surfaces": surfaces}.items():
        if members:
            known = [[np.mean(cells[task, m]) for task in members if (task, m) in cells] for m in methods]
            lines.append(_line(name, [f"{np.mean(values):.3f}" if values else "-" for values in known]))
    ranks = mean_ranks(rows)
    lines.append(_line("mean rank", [f"{ranks[m]:.2f}" if m in ranks else "-" for m in methods]))
    trained = [np.median([row["num_trained"] for row in rows if row["method"] == m]) for m in methods]
    lines.append(_line("trained, median", [f"{number:,.0f}" for number in trained]))
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str]) -> str:
    return "  ".join([f"{name:22}", *(f"{cell:>16}" for cell in cells)])
