"""Picture of the accuracy benchmark: every task's accuracies with their intervals, and the mean ranks.

matplotlib's object interface only: pyplot keeps global state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tests.benchmarks.accuracy.table import interval, mean_ranks

__all__ = ["draw_accuracies"]


def draw_accuracies(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw rows of ``comparison.run``; the suffix of the file chooses the format.

    Args:
        rows: Rows of any tasks and methods.
        file: File to write.
    """
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    ranks = mean_ranks(rows)
    # The salt makes ids, and with them the file, the same at every run.
    with matplotlib.rc_context({"svg.hashsalt": "ship", "font.size": 9}):
        figure = Figure(figsize=(11, 1.5 + 0.6 * len(tasks)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 1))
        colours = matplotlib.colormaps["tab20"](np.linspace(0, 1, 20))[np.arange(len(methods)) * 2 % 20]
        for number, method in enumerate(methods):
            own = [row for row in rows if row["method"] == method]
            shift = (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
            left.errorbar(
                [float(np.mean(row["accuracies"])) for row in own],
                [tasks.index(row["task"]) + shift for row in own],
                xerr=[np.nan_to_num(interval(row["accuracies"], row.get("num_test"))) for row in own],
                fmt="D" if method == "ship" else "o",
                markersize=5 if method == "ship" else 3.5,
                linewidth=1,
                color=colours[number],
                label=method,
            )
        left.set_yticks(range(len(tasks)), tasks)
        left.set_ylim(len(tasks) - 0.5, -0.5)
        left.hlines(np.arange(len(tasks) - 1) + 0.5, 0, 1, color="0.9", linewidth=0.8)
        left.set_xlim(right=1.01)
        left.set_xlabel("test accuracy, mean of seeds and 95% interval")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=8)
        right.barh(methods, [ranks.get(method, np.nan) for method in methods], color=colours)
        right.invert_yaxis()
        right.set_xlabel("mean rank, 1 is best")
        # Without a date two runs of the same numbers draw the same bytes.
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
