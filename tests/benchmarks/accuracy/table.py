"""Table of the accuracy benchmark: means, their intervals and ranks, from rows of ``comparison.run``.

An interval covers both seeds and test pictures: the same method trained again, and asked about other pictures
of the same kind. Two methods of one task share its test pictures, so their difference is surer than the two
intervals say.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from tests.benchmarks.accuracy.suites import source_of

__all__ = ["describe", "interval", "mean_ranks", "render"]


def interval(accuracies: Sequence[float], num_test: int | None = None) -> float:
    """Half of the 95% interval of a mean accuracy, by Student's t; nan for a single seed.

    Args:
        accuracies: One of each seed.
        num_test: Test pictures, the same for every seed: their binomial variance adds to that of the seeds,
            with degrees of freedom by Welch and Satterthwaite. None leaves test sampling out.
    """
    if len(accuracies) < 2:
        return math.nan
    mean, freedom = float(np.mean(accuracies)), len(accuracies) - 1
    of_seeds = float(np.var(accuracies, ddof=1)) / len(accuracies)
    of_test = mean * (1 - mean) / num_test if num_test else 0.0
    variance = of_seeds + of_test
    if of_seeds > 0.0:
        freedom = freedom * (variance / of_seeds) ** 2
    elif of_test > 0.0:
        freedom = math.inf
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)


def mean_ranks(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Each method's rank by mean accuracy, 1 for the best, over the tasks that all methods did.

    Ranks are averaged over the tasks of a source, then over sources: one data set in four tasks counts once.
    """
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
    ranks = dict(zip(tasks, stats.rankdata(table, axis=1), strict=True))
    averages = np.mean(
        [np.mean([ranks[task] for task in group], axis=0) for group in _by_source(tasks)], axis=0
    )
    return {method: float(rank) for method, rank in zip(methods, averages, strict=True)}


def _by_source(tasks: Iterable[str]) -> list[list[str]]:
    groups = defaultdict(list)
    for task in tasks:
        groups[source_of(task)].append(task)
    return list(groups.values())


def describe(row: dict[str, Any]) -> str:
    """Mean accuracy and half of its interval. Rows of earlier runs have no number of test pictures."""
    accuracies = row["accuracies"]
    return f"{float(np.mean(accuracies)):.3f} +- {interval(accuracies, row.get('num_test')):.3f}"


def render(rows: Sequence[dict[str, Any]]) -> str:
    """A table: tasks down, methods across, means below."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["task"], row["method"]): row for row in rows}
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = [_line("task", methods)]
    for task in tasks:
        lines.append(_line(task, [describe(cells[task, m]) if (task, m) in cells else "-" for m in methods]))
    for name, groups in {"mean": [[task] for task in tasks], "mean by source": _by_source(tasks)}.items():
        lines.append(_line(name, [_mean_of_groups(groups, m, cells) for m in methods]))
    ranks = mean_ranks(rows)
    lines.append(_line("mean rank by source", [f"{ranks[m]:.2f}" if m in ranks else "-" for m in methods]))
    trained = [np.median([row["num_trained"] for row in rows if row["method"] == m]) for m in methods]
    lines.append(_line("trained, median", [f"{number:,.0f}" for number in trained]))
    return "\n".join([*lines, *_edges(rows)])


def _mean_of_groups(
    groups: list[list[str]], method: str, cells: dict[tuple[str, str], dict[str, Any]]
) -> str:
    """Mean over groups of the mean over a group's tasks; "-" where the method lacks a task."""
    if not all((task, method) in cells for group in groups for task in group):
        return "-"
    means = [np.mean([np.mean(cells[task, method]["accuracies"]) for task in group]) for group in groups]
    return f"{np.mean(means):.3f}"


def _edges(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each choice at the edge of its grid: a wider grid might have found a better one."""
    return [
        f"at the edge of its grid: {row['method']} on {row['task']}, {name} {row['settings'][name]}"
        for row in rows
        for name in row.get("at_edge", [])
    ]


def _line(name: str, cells: Sequence[str]) -> str:
    return "  ".join([f"{name:22}", *(f"{cell:>16}" for cell in cells)])
