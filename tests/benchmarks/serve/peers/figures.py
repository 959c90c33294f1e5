"""Figures of servers from their rounds: medians, paired ratios, and a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.harness import Ratio, paired_ratio
from tests.benchmarks.serve.load import Load

__all__ = [
    "ANSWERS",
    "MEMORY",
    "Figures",
    "Round",
    "choose_rates",
    "find_ratios",
    "medians",
    "render_markdown",
    "render_table",
]

Figures = dict[str, float]
ANSWERS, MEMORY, CPU, FAILED, WRONG = (
    "answers a second",
    "MiB",
    "CPU ms an answer",
    "not answered, %",
    "wrong",
)
# Share of the slowest server's capacity, and of our own, at which requests arrive.
SHARE_OF_SLOWEST, SHARE_OF_OURS = 0.5, 0.8
_LOW, _HIGH = "half of the slowest", "0.8 of ours"
# In place of a percentile where nothing was answered: the clients' own time limit.
_NEVER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Round:
    """Loads on one server, one after the other.

    Attributes:
        closed: The closed loop.
        opened: Open loops by name of their rate.
        memory_bytes: Memory of all its processes at the end, see ``Server.memory_bytes``.
        cpu_s: CPU time that the closed loop took in the server.
    """

    closed: Load
    opened: Mapping[str, Load]
    memory_bytes: int
    cpu_s: float

    def figures(self) -> Figures:
        """Figures by name."""
        loads = {"closed": self.closed, **self.opened}
        found = {ANSWERS: len(self.closed.seconds) / self.closed.took_s}
        for name, load in loads.items():
            for label, share in (("p50", 0.5), ("p99", 0.99)):
                seconds = load.percentile_s(share) if load.seconds else _NEVER_S
                found[f"{label} ms, {name}"] = 1000.0 * seconds
            found[f"{FAILED}, {name}"] = 100.0 * load.num_failed / max(1, sum(load.statuses.values()))
        found[WRONG] = float(sum(len(load.mixed) for load in loads.values()))
        found[MEMORY] = self.memory_bytes / 2**20
        found[CPU] = 1000.0 * self.cpu_s / max(1, len(self.closed.seconds))
        return found


def choose_rates(capacity: Mapping[str, float], ours: str) -> dict[str, float]:
    """Requests a second of the open loops.

    Args:
        capacity: Answers a second of each server in closed loops.
        ours: Our own server's name; the fastest is taken where it is not measured.
    """
    return {
        _LOW: SHARE_OF_SLOWEST * min(capacity.values()),
        _HIGH: SHARE_OF_OURS * capacity.get(ours, max(capacity.values())),
    }


def medians(rounds: Sequence[Figures]) -> Figures:
    """Median of each figure; wrong answers are added up."""
    found = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return {**found, WRONG: sum(each[WRONG] for each in rounds)}


def find_ratios(found: Mapping[str, Sequence[Figures]], ours: str, goal: float | None) -> list[Ratio]:
    """Our figures against each other server's, such that more is better: answers, 1 / p99, 1 / memory.

    Args:
        found: Figures of the rounds by server.
        ours: Our own server's name.
        goal: Goal for answers and for p99.
    """
    ratios = []
    for name, theirs in found.items():
        if name == ours or ours not in found:
            continue
        for figure in theirs[0]:
            is_p99 = figure.startswith("p99")
            if not (is_p99 or figure in (ANSWERS, MEMORY)):
                continue
            above, below = ([each[figure] for each in found[side]] for side in (ours, name))
            if figure == ANSWERS:
                ratios.append(paired_ratio(ANSWERS, name, above, below, goal))
            else:
                aim = goal if is_p99 else None
                ratios.append(paired_ratio(f"1 / {figure}", name, below, above, aim))
    return ratios


def render_markdown(cases: Sequence[Mapping[str, Any]]) -> str:
    """Rows for a document: medians of each server, and in brackets what ours is against it.

    Args:
        cases: Cases of one or more reports, as in their JSON.
    """
    names = list(dict.fromkeys(name for case in cases for name in case["facts"]))
    lines = ["| | | " + " | ".join(names) + " |", "| --- " * (len(names) + 2) + "|"]
    for case in cases:
        speeds = {(ratio["of"].removeprefix("1 / "), ratio["against"]): ratio for ratio in case["ratios"]}
        title = f"{case['settings']['backbone']}, {case['settings']['tasks']} tasks"
        shown = next(iter(case["facts"].values()))["median"]
        for figure in shown:
            cells = [_cell(case["facts"].get(name), figure, speeds.get((figure, name))) for name in names]
            lines.append(f"| {title} | {figure} | " + " | ".join(cells) + " |")
            title = ""
    return "\n".join(lines)


def _cell(facts: Mapping[str, Any] | None, figure: str, ratio: Mapping[str, float] | None) -> str:
    if facts is None:
        return ""
    value = f"{facts['median'][figure]:.1f}"
    if ratio is None:
        return value
    return f"{value} ({ratio['speed']:.2f}, quartiles {ratio['low']:.2f} to {ratio['high']:.2f})"


def render_table(title: str, found: Mapping[str, Figures]) -> str:
    """A row for each figure, a column for each server."""
    names = list(found)
    width = max(len(name) for figures in found.values() for name in figures)
    lines = [title, " " * width + "".join(f"{name:>12}" for name in names)]
    for figure in found[names[0]]:
        cells = "".join(f"{found[name][figure]:12.1f}" for name in names)
        lines.append(f"{figure:<{width}}{cells}")
    return "\n".join(lines)
