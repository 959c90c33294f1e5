"""Everything that a GPU has to show, in at most eight minutes: ``python -m tests.benchmarks.gpu``.

Needs torch, timm, safetensors, numpy, Pillow, fsspec and scikit-learn; no network, no Ray, no MLflow. Parts
whose further packages are missing (pytest, PEFT) say so. Each part is a process with a time limit; the JSON
is rewritten after each, and holds what a part that was cut off had measured.
"""

import argparse
import functools
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import engine, modes, precision, residency, runtime, tuning
from tests.benchmarks.harness import Case, Report, describe_machine
from tests.benchmarks.synthetic import VIT_B, find_backbone

__all__ = ["PARTS", "Part", "Sizes", "check", "describe_card", "main", "measure_all", "run_command"]

LIMIT_S = 480.0
VIT_L = "vit_large_patch16_224"
_ROOT = Path(__file__).parents[2]
_QUERIES = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "power.limit",
    "temperature.gpu",
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of all parts.

    Attributes:
        base: Backbone in place of a ViT-B/16.
        large: Backbone in place of a ViT-L/16.
        batches: Batch sizes of answering.
        tasks: Tasks that are resident.
        passes: Passes of a call of the engine.
        rounds: Rounds of each case.
        step: Images of a tuning step.
        steps: Steps of a task of which the precision is measured.
        pictures: Most pictures that it is measured on.
        backend: Backend of ``torch.compile``.
    """

    base: str = VIT_B
    large: str = VIT_L
    batches: tuple[int, ...] = (32, 128)
    tasks: int = 10_000
    passes: int = 8
    rounds: int = 7
    step: int = 64
    steps: int = precision.NUM_STEPS
    pictures: int = 797
    backend: str = "inductor"


DRY = Sizes(
    base="tiny",
    large="tiny",
    batches=(3,),
    tasks=20,
    passes=2,
    rounds=1,
    step=4,
    steps=2,
    pictures=20,
    backend="eager",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the run.

    Attributes:
        legend: Meaning of its rows.
        limit_s: Its own time limit.
        measure: Adds its cases to a report.
    """

    legend: Mapping[str, str]
    limit_s: float
    measure: Callable[[Report, Sizes, torch.device], None]


def _test(report: Report, sizes: Sizes, device: torch.device) -> None:
    if importlib.util.find_spec("pytest") is None:
        report.skipped.append("tests/gpu: pytest is not installed")
        return
    # Neither a plugin's settings nor another version's deprecations decide here.
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-W", "default", "tests/gpu"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], capture_output=True, text=True, cwd=_ROOT
    )
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    if done.returncode:
        print("\n".join(lines[-40:]), file=sys.stderr)
        raise AssertionError(f"tests/gpu: {lines[-1] if lines else 'no output'}")
    report.add(
        Case(settings={"tests": "tests/gpu"}, rounds=1, seconds={}, ratios=[], facts={"said": lines[-1]})
    )


def _modes(report: Report, sizes: Sizes, device: torch.device, *, is_large: bool) -> None:
    name = sizes.large if is_large else sizes.base
    modes.run(
        report,
        backbone=find_backbone(name, device),
        name=name,
        dtype=torch.bfloat16,
        batches=sizes.batches,
        rounds=sizes.rounds,
        backend=sizes.backend,
    )


def _engine(report: Report, sizes: Sizes, device: torch.device, *, is_large: bool) -> None:
    name = sizes.large if is_large else sizes.base
    engine.run(
        report,
        backbone=find_backbone(name, device),
        name=name,
        dtype=torch.bfloat16,
        batches=sizes.batches,
        num_tasks=min(sizes.tasks, 1_000),
        passes=sizes.passes,
        rounds=sizes.rounds,
    )


def _residency(report: Report, sizes: Sizes, device: torch.device) -> None:
    numbers = [number for number in (1, 100, 1_000) if number < sizes.tasks]
    residency.run(
        report,
        name=sizes.base,
        numbers=[*numbers, sizes.tasks],
        rounds=sizes.rounds,
        device=device,
        dtype=torch.bfloat16,
    )


def _runtime(report: Report, sizes: Sizes, device: torch.device) -> None:
    # Setting up an adapter a row takes PEFT long: in the smallest batch alone.
    few = [row for row in runtime.LEGEND if row[0] in "acdegj"]
    for batch in sizes.batches:
        runtime.run(
            report,
            names=[sizes.base],
            batches=[batch],
            rounds=sizes.rounds,
            device=device,
            wanted=[row for row in few if row != "e lora" or batch == min(sizes.batches)],
            dtypes=(torch.float32, torch.bfloat16),
        )


def _tuning(report: Report, sizes: Sizes, device: torch.device) -> None:
    tuning.run(
        report,
        names=[sizes.base],
        batch=sizes.step,
        packs=[4],
        rounds=sizes.rounds,
        device=device,
        with_memory=False,
    )


def _precision(report: Report, sizes: Sizes, device: torch.device) -> None:
    backbone = find_backbone("bundled" if sizes.backend == "inductor" else sizes.base, device)
    precision.run(report, backbone=backbone, names=["digits"], most=sizes.pictures, steps=sizes.steps)


# In the order of what is missed most if time runs out.
PARTS: dict[str, Part] = {
    "tests": Part(legend={}, limit_s=90, measure=_test),
    "modes": Part(legend=modes.LEGEND, limit_s=100, measure=functools.partial(_modes, is_large=False)),
    "engine": Part(legend=engine.LEGEND, limit_s=50, measure=functools.partial(_engine, is_large=False)),
    "residency": Part(legend=residency.LEGEND, limit_s=70, measure=_residency),
    "runtime": Part(legend=runtime.LEGEND, limit_s=70, measure=_runtime),
    "engine, large": Part(
        legend=engine.LEGEND, limit_s=60, measure=functools.partial(_engine, is_large=True)
    ),
    "tuning": Part(legend=tuning.LEGEND, limit_s=70, measure=_tuning),
    "precision": Part(legend=precision.LEGEND, limit_s=50, measure=_precision),
    "modes, large": Part(legend=modes.LEGEND, limit_s=100, measure=functools.partial(_modes, is_large=True)),
}


class _SavedReport(Report):
    """A report that is written after every case, for its process may be ended."""

    target: str = ""

    def add(self, case: Case) -> None:
        """See ``Report.add``."""
        super().add(case)
        self.write(self.target)


def measure_part(name: str, sizes: Sizes, device: torch.device, target: str) -> None:
    """Measure one part in this process, and write its report.

    Raises:
        ArithmeticError: Answers differ, or a figure is none.
    """
    part = PARTS[name]
    report = _SavedReport(benchmark=name, legend=dict(part.legend))
    report.target = target
    part.measure(report, sizes, device)
    # Its clocks as they are under load: an idle card's are low.
    report.machine["card"] = describe_card() if device.type == "cuda" else {}
    report.write(target)
    check(asdict(report))


def check(report: Mapping[str, Any]) -> None:
    """Check that a part measured something, and that every time and ratio is a number above zero.

    Raises:
        ArithmeticError: Says what is not.
    """
    if not report["cases"] and not report["skipped"]:
        raise ArithmeticError(f"{report['benchmark']}: measured nothing")
    for case in report["cases"]:
        figures = dict(case["seconds"]) | {f"{r['of']} / {r['against']}": r["speed"] for r in case["ratios"]}
        if bad := [f"{row}: {value}" for row, value in figures.items() if not 0.0 < value < float("inf")]:
            raise ArithmeticError(f"{report['benchmark']}: expected numbers above 0, found {', '.join(bad)}")


def run_command(command: Sequence[str], limit_s: float) -> tuple[str, str]:
    """Run a command, ended with all that it started at its time limit; returns status and last line."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stderr=said, stdout=said, cwd=_ROOT, start_new_session=True)
        try:
            code: int | None = process.wait(max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        text = said.read()
    print(text, file=sys.stderr, flush=True)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    if code is None:
        return f"cut off after {limit_s:.0f} s", last
    return ("ok" if code == 0 else f"failed ({code})"), last


def measure_all(
    target: Path,
    measure: Callable[[str, float, str], tuple[str, str]],
    *,
    facts: Mapping[str, Any],
    names: Sequence[str] = tuple(PARTS),
    limit_s: float = LIMIT_S,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Measure all parts; returns what was written.

    Args:
        target: File that is rewritten after each part.
        measure: Measures a part within a time limit into a file; returns its status and its last line.
        facts: What the file says beside the parts.
        names: The parts.
        limit_s: Of all of them.
        clock: Seconds that only go up.
    """
    start_s, written = clock(), {**facts, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            own = Path(folder) / "part.json"
            own.unlink(missing_ok=True)
            began_s = clock()
            left_s = min(PARTS[name].limit_s, limit_s - (began_s - start_s))
            status, last = (
                ("skipped: no time was left", "") if left_s <= 0 else measure(name, left_s, str(own))
            )
            found = json.loads(own.read_text()) if own.exists() else {}
            card = found.pop("machine", {}).get("card")
            written["parts"][name] = {"status": status, "seconds": round(clock() - began_s, 1), **found}
            if card:
                written["parts"][name]["card"] = card
            if status != "ok":
                written["parts"][name]["last line"] = last
            print(f"{name}: {status}, {clock() - began_s:.0f} s", file=sys.stderr, flush=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            temporary.write_text(json.dumps(written, indent=1) + "\n")
            temporary.replace(target)
    return written


def describe_card() -> dict[str, str]:
    """The first card as its driver describes it; empty without one."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERIES)}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_QUERIES, (value.strip() for value in said.splitlines()[0].split(",")), strict=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; returns 1 if a part failed or was cut off."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="file to write [docs/gpu-<card>.json]")
    parser.add_argument("--device", default="cuda", help="device [%(default)s]")
    parser.add_argument(
        "--dry", action="store_true", help="tiny sizes on the CPU, in this process: does it run?"
    )
    parser.add_argument("--part", action="append", choices=list(PARTS), help="part; repeat for more [all]")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for all of it [%(default)g]")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    sizes, device = (DRY, torch.device("cpu")) if given.dry else (Sizes(), torch.device(given.device))
    if given.here:
        measure_part(given.part[0], sizes, device, given.json)
        return 0
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --dry tries everything on the CPU")

    def in_process(name: str, limit_s: float, target: str) -> tuple[str, str]:
        try:
            measure_part(name, sizes, device, target)
        # A boundary: a part that fails, with whatever error, must not cost the others their figures.
        except Exception as error:
            return f"failed ({type(error).__name__})", str(error)
        return "ok", ""

    def apart(name: str, limit_s: float, target: str) -> tuple[str, str]:
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--here", "--part", name, "--json", target]
        return run_command([*command, "--device", given.device], limit_s)

    card = describe_card() if device.type == "cuda" else {}
    slug = re.sub("[^a-z0-9]+", "-", card.get("name", str(device)).lower()).strip("-")
    target = Path(given.json or _ROOT / "docs" / f"gpu-{slug}.json")
    facts = {"machine": describe_machine(), "card": card, "dry": given.dry}
    written = measure_all(
        target,
        in_process if given.dry else apart,
        facts=facts,
        names=given.part or list(PARTS),
        limit_s=given.limit,
    )
    print(f"written: {target}", file=sys.stderr)
    return int(any(part["status"] != "ok" for part in written["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
