"""Interleaved comparisons in one process, by medians of paired ratios, because machines are noisy.

Knows nothing of SHIP.
"""

import contextlib
import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

__all__ = [
    "Case",
    "Ratio",
    "Report",
    "compare",
    "compute_clock",
    "describe_machine",
    "open_report",
    "paired_ratio",
    "peak_bytes",
    "render",
]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Speed of one row relative to another: median of paired ratios, and their quartiles.

    Attributes:
        of: The row.
        against: The other row.
        speed: Median.
        low: Lower quartile.
        high: Upper quartile.
        goal: Ratio to reach, if one was set.
    """

    of: str
    against: str
    speed: float
    low: float
    high: float
    goal: float | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """Rows that were measured side by side.

    Attributes:
        settings: Settings that all rows share.
        rounds: Rounds after a warm-up.
        seconds: Median of a call of each row; comparable only within the case.
        ratios: Ratios of rows.
        facts: Other figures, such as bytes.
    """

    settings: dict[str, Any]
    rounds: int
    seconds: dict[str, float]
    ratios: list[Ratio]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Report:
    """Results of one benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        legend: Meaning of each row.
        machine: Hardware and versions.
        cases: Cases in the order of measuring.
        skipped: Rows that were not measured, with the reason.
    """

    benchmark: str
    legend: dict[str, str]
    machine: dict[str, Any] = field(default_factory=lambda: describe_machine())
    cases: list[Case] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Keep a case, and print it at once to standard error: a long run shows its results so far."""
        self.cases.append(case)
        print(render(case), file=sys.stderr, flush=True)

    def write(self, target: str | None) -> None:
        """The legend and all cases as JSON to a file, or to standard output for ``-``."""
        text = json.dumps(asdict(self), indent=2)
        if target == "-":
            print(text)
        elif target:
            Path(target).write_text(text + "\n")


@contextlib.contextmanager
def open_report(benchmark: str, legend: dict[str, str], target: str | None) -> Iterator[Report]:
    """A report for the block, written to ``target`` at its end; see ``Report.write``."""
    report = Report(benchmark=benchmark, legend=legend)
    print(f"{benchmark}: " + ", ".join(f"{k} {v}" for k, v in report.machine.items()), file=sys.stderr)
    yield report
    for reason in dict.fromkeys(report.skipped):
        print(f"skipped {reason}", file=sys.stderr)
    report.write(target)


def compare(
    rows: Mapping[str, Callable[[], object]],
    pairs: Sequence[tuple[str, str, float | None]],
    *,
    settings: dict[str, Any],
    rounds: int,
    device: torch.device,
    facts: dict[str, Any] | None = None,
    work: Mapping[str, float] = MappingProxyType({}),
    clock: Callable[[], float] = time.perf_counter,
) -> Case:
    """Run all rows once a round, each round beginning with another one.

    Args:
        rows: Timed calls by name.
        pairs: Row, other row, and the goal for their ratio.
        settings: Settings for the report.
        rounds: Rounds after a warm-up.
        device: Device that is synchronized after each call.
        facts: Facts for the report.
        work: Units of work of one call by row, 1 unless given. Ratios are per unit.
        clock: Seconds from an arbitrary start.
    """
    names = list(rows)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start_s = clock()
            rows[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= 0:
                taken[name].append((clock() - start_s) / work.get(name, 1.0))
    ratios = [
        paired_ratio(of, against, taken[against], taken[of], goal)
        for of, against, goal in pairs
        if of in rows and against in rows
    ]
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    return Case(settings=settings, rounds=rounds, seconds=seconds, ratios=ratios, facts=facts or {})


def compute_clock(device: torch.device) -> Callable[[], float]:
    """The clock for work on a device: for one thread of a CPU the process's own, which counts no waiting."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def paired_ratio(
    of: str, against: str, above: Sequence[float], below: Sequence[float], goal: float | None = None
) -> Ratio:
    """A ratio from values that were measured in the same rounds, ``above`` divided by ``below``."""
    paired = [over / under for over, under in zip(above, below, strict=True)]
    low, _, high = statistics.quantiles(paired, n=4, method="inclusive") if len(paired) > 1 else paired * 3
    return Ratio(of=of, against=against, speed=statistics.median(paired), low=low, high=high, goal=goal)


def render(case: Case) -> str:
    """A case as plain text."""
    lines = ["  ".join(f"{key}={value}" for key, value in case.settings.items()) + f"  rounds={case.rounds}"]
    for ratio in case.ratios:
        verdict = ""
        if ratio.goal is not None:
            verdict = f"  goal {ratio.goal:g}: {'met' if ratio.speed >= ratio.goal else 'missed'}"
        lines.append(
            f"  {ratio.of:>12} / {ratio.against:<12} {ratio.speed:8.3f}   "
            f"(quartiles {ratio.low:.3f} to {ratio.high:.3f}){verdict}"
        )
    lines += [f"  {name:>12}: {value}" for name, value in case.facts.items()]
    lines.append("  median s: " + ", ".join(f"{name} {value:.4g}" for name, value in case.seconds.items()))
    return "\n".join(lines)


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Hardware and versions that the figures depend on."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {
        "cpu": capabilities.get("cpu_name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of a call beyond the memory held before it; None where the system does not report it.

    On a CPU it is the process's high-water mark. The C library's allocator first returns freed memory to the
    system: a call that reused it would seem to take nothing.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        _give_back_freed_memory()
        # From now on the high-water mark counts anew.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        call()
        return _status_bytes("VmHWM") - before
    except OSError:
        return None


def _give_back_freed_memory() -> None:
    gc.collect()
    # Only glibc keeps what is freed, and only glibc has this.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
