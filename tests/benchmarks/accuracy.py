"""How well SHIP answers beside what people would tune instead, with the same pictures, candidates and steps.

For each task and method: settings by accuracy on a fifth of the first seed's training pictures (ties by
loss), then all training pictures, once a seed, and the test after the last step. Nothing is chosen by test.
A run that is stopped goes on from its file.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ship.backbone import Backbone
from tests.benchmarks.accuracy_methods import ALL, Fit, fit_all
from tests.benchmarks.accuracy_tasks import Problem, make_problem
from tests.benchmarks.harness import describe_machine, peak_bytes

__all__ = ["interval", "mean_ranks", "render", "run"]


def run(
    *,
    backbone: Backbone,
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    num_steps: int,
    vtab: dict[str, Path],
    file: Path | None,
) -> dict[str, Any]:
    """Fill the table, task by task.

    Args:
        backbone: For all methods.
        tasks: Names.
        methods: Of ``ALL``.
        seeds: Training runs of the chosen settings, 0 to ``seeds - 1``.
        num_steps: Of every training.
        vtab: Folders of VTAB-1k tasks by name.
        file: Rows that it has already are kept; it is rewritten after each new one.

    Raises:
        ValueError: The file is of another protocol.
    """
    protocol = {"backbone": backbone.fingerprint, "seeds": seeds, "steps": num_steps}
    found: dict[str, Any] = {"protocol": protocol, "machine": describe_machine(), "rows": []}
    if file is not None and file.exists():
        found = json.loads(file.read_text())
        if found["protocol"] != protocol:
            raise ValueError(
                f"{file}: expected results of {protocol}, found {found['protocol']}; name another file"
            )
    done = {(row["task"], row["method"]) for row in found["rows"]}
    for task in tasks:
        wanted = [method for method in methods if (task, method) not in done]
        problems = [make_problem(task, seed, backbone, vtab) for seed in range(seeds)] if wanted else []
        for method in wanted:
            row = {"task": task, "method": method, **measure(backbone, problems, method, num_steps)}
            found["rows"].append(row)
            print(f"{task}  {method}  {describe(row['accuracies'])}", file=sys.stderr, flush=True)
            if file is not None:
                file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def measure(backbone: Backbone, problems: Sequence[Problem], method: str, num_steps: int) -> dict[str, Any]:
    """One row: the settings that validation chose, and the test accuracy of each seed."""
    candidates = ALL[method]
    clock_s, best = time.monotonic(), 0
    if len(candidates) > 1:
        fits = fit_all(backbone, problems[0].search, method, candidates, seed=0, num_steps=num_steps)
        best = max(range(len(fits)), key=lambda i: (fits[i].accuracy, -fits[i].val_loss))
    search_s, clock_s = time.monotonic() - clock_s, time.monotonic()
    chosen = [candidates[best]]
    finals: list[Fit] = []
    peaks = [
        peak_bytes(
            lambda seed=seed, problem=problem: finals.extend(
                fit_all(backbone, problem.final, method, chosen, seed=seed, num_steps=num_steps)
            ),
            backbone.device,
        )
        for seed, problem in enumerate(problems)
    ]
    known = [peak for peak in peaks if peak is not None]
    return {
        "settings": candidates[best],
        "accuracies": [fit.accuracy for fit in finals],
        "num_trained": finals[0].num_trained,
        # The largest: on a CPU a later fit may live on memory that an earlier one has not given back.
        "peak_bytes": max(known, default=None),
        "search_s": round(search_s, 2),
        "fit_s": round((time.monotonic() - clock_s) / len(problems), 2),
    }


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
    lines = ["  ".join([f"{'task':22}", *(f"{method:>16}" for method in methods)])]
    for task in tasks:
        shown = [describe(cells[task, m]) if (task, m) in cells else "-" for m in methods]
        lines.append("  ".join([f"{task:22}", *(f"{cell:>16}" for cell in shown)]))
    means = [
        f"{np.mean([np.mean(cells[task, m]) for task in tasks if (task, m) in cells]):.3f}" for m in methods
    ]
    lines.append("  ".join([f"{'mean':22}", *(f"{cell:>16}" for cell in means)]))
    ranks = mean_ranks(rows)
    shown = [f"{ranks[m]:.2f}" if m in ranks else "-" for m in methods]
    lines.append("  ".join([f"{'mean rank':22}", *(f"{cell:>16}" for cell in shown)]))
    return "\n".join(lines)
