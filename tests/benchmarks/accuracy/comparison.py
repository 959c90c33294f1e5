"""Test accuracy of SHIP and of other methods with the same pictures, candidates and steps.

For each task and method: settings by accuracy on a fifth of the first seed's training pictures (ties by
loss) after half of the steps, then training on all of them, once a seed, and the test after the last step.
The test chooses nothing. An interrupted run resumes from its file.
"""

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ship.backbone import Backbone, load_backbone
from ship.data import TaskData
from tests.benchmarks.accuracy.methods import ALL, Effort, Fit, Precision, fit_all
from tests.benchmarks.accuracy.table import describe
from tests.benchmarks.accuracy.tasks import Problem, make_problem
from tests.benchmarks.harness import describe_machine, peak_bytes
from tests.benchmarks.synthetic import find_backbone

__all__ = ["Protocol", "measure", "run"]

Pair = tuple[str, str]
Fitter = Callable[[Backbone, TaskData, str, Sequence[dict[str, Any]], Effort], list[Fit]]
SEARCH_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Conditions that all methods share.

    Attributes:
        backbone: Name, as in a manifest, or ``tiny``.
        device: Device of torch.
        seeds: Training runs of the chosen settings, 0 to ``seeds - 1``.
        num_steps: Optimizer steps of each run.
        batch_size: Training pictures a step.
        precision: Precision of training, see ``TuneConfig``. Not ``auto``: rows of one table may come from
            several machines.
        vtab: Folders of VTAB-1k tasks by name.
    """

    backbone: str
    device: str
    seeds: int
    num_steps: int
    batch_size: int
    precision: Precision
    vtab: dict[str, Path]

    def load_backbone(self) -> Backbone:
        """The backbone with its trained weights: accuracies of random weights say nothing."""
        device = torch.device(self.device)
        return (
            find_backbone("tiny", device) if self.backbone == "tiny" else load_backbone(self.backbone, device)
        )

    def describe(self, backbone: Backbone) -> dict[str, Any]:
        """Conditions that must be equal for all rows of one table."""
        return {
            "backbone": backbone.fingerprint,
            "seeds": self.seeds,
            "steps": self.num_steps,
            "batch_size": self.batch_size,
            "precision": self.precision,
        }

    def effort(self, seed: int, share: float = 1.0) -> Effort:
        """Budget of one training run, or of a share of it."""
        return Effort(
            seed=seed,
            num_steps=math.ceil(self.num_steps * share),
            batch_size=self.batch_size,
            precision=self.precision,
        )


def run(
    protocol: Protocol, *, tasks: Sequence[str], methods: Sequence[str], jobs: int, file: Path | None
) -> dict[str, Any]:
    """Fill the table.

    Args:
        protocol: Conditions of all rows.
        tasks: Names of tasks.
        methods: Names of ``ALL``.
        jobs: Number of processes; several have one thread each.
        file: JSON file whose rows are kept; it is rewritten after each new row.

    Raises:
        ValueError: The file has another protocol.
    """
    wanted = protocol.describe(protocol.load_backbone())
    found: dict[str, Any] = {"protocol": wanted, "machine": describe_machine(), "rows": []}
    if file is not None and file.exists():
        found = json.loads(file.read_text())
        if found["protocol"] != wanted:
            raise ValueError(
                f"{file}: expected results of {wanted}, found {found['protocol']}; name another file"
            )
    done = {(row["task"], row["method"]) for row in found["rows"]}
    pairs = [(task, method) for task in tasks for method in methods if (task, method) not in done]
    order = {pair: place for place, pair in enumerate((task, method) for task in tasks for method in ALL)}
    for row in _measure_all(protocol, pairs, jobs):
        found["rows"].append(row)
        found["rows"].sort(key=lambda row: order.get((row["task"], row["method"]), len(order)))
        print(f"{row['task']}  {row['method']}  {describe(row['accuracies'])}", file=sys.stderr, flush=True)
        if file is not None:
            _write(file, json.dumps(found, indent=1) + "\n")
    return found


def _measure_all(protocol: Protocol, pairs: Sequence[Pair], jobs: int) -> Iterator[dict[str, Any]]:
    """Rows in the order of completion."""
    if jobs == 1:
        for pair in pairs:
            yield _measure_pair(protocol, pair)
        return
    # A forked process would wait for threads of a pool that it has not inherited.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        waiting = [pool.submit(_measure_pair, protocol, pair) for pair in pairs]
        try:
            for row in as_completed(waiting):
                yield row.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _measure_pair(protocol: Protocol, pair: Pair) -> dict[str, Any]:
    task, method = pair
    backbone = protocol.load_backbone()
    problems = [make_problem(task, seed, backbone, protocol.vtab) for seed in range(protocol.seeds)]
    return {"task": task, "method": method, **measure(backbone, problems, method, protocol)}


def _write(file: Path, text: str) -> None:
    """Write the file atomically: it holds hours of work."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


def measure(
    backbone: Backbone,
    problems: Sequence[Problem],
    method: str,
    protocol: Protocol,
    fit_all: Fitter = fit_all,
) -> dict[str, Any]:
    """A row: the settings that validation chose, and the test accuracy of each seed."""
    candidates = ALL[method]
    clock_s, best = time.monotonic(), 0
    if len(candidates) > 1:
        fits = fit_all(backbone, problems[0].search, method, candidates, protocol.effort(0, SEARCH_SHARE))
        best = max(range(len(fits)), key=lambda i: (fits[i].accuracy, -fits[i].val_loss))
    search_s, clock_s = time.monotonic() - clock_s, time.monotonic()
    chosen = [candidates[best]]
    finals: list[Fit] = []
    peaks = [
        peak_bytes(
            lambda seed=seed, problem=problem: finals.extend(
                fit_all(backbone, problem.final, method, chosen, protocol.effort(seed))
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
        "peak_bytes": max(known, default=None),
        "search_s": round(search_s, 2),
        "fit_s": round((time.monotonic() - clock_s) / len(problems), 2),
    }
