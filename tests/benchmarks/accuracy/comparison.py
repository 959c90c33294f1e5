"""Test accuracy of SHIP and of other methods with the same pictures, candidates and steps.

For each task and method: settings by accuracy on a fifth of the first seed's training pictures (ties by
loss) after half of the steps, then training on all of them, once a seed, and the test after the last step.
A learning rate that wins at the edge of its grid is followed outwards, at most twice. The test chooses
nothing. An interrupted run resumes from its file.
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
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ship.backbone import Backbone, load_backbone
from ship.data import TaskData
from tests.benchmarks.accuracy.methods import ALL, Effort, Fit, Precision, fit_all
from tests.benchmarks.accuracy.problem import Problem
from tests.benchmarks.accuracy.suites import find_problem
from tests.benchmarks.accuracy.table import describe
from tests.benchmarks.harness import describe_machine, peak_bytes
from tests.benchmarks.synthetic import find_backbone

__all__ = ["Protocol", "measure", "run"]

Pair = tuple[str, str]
Settings = dict[str, Any]
Fitter = Callable[[Backbone, TaskData, str, Sequence[Settings], Effort], list[Fit]]
SEARCH_SHARE = 0.5
MAX_EXTENSIONS = 2


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Conditions that all methods share.

    Attributes:
        backbone: Name, as in a manifest, or ``tiny``.
        image_size: Height and width that the backbone sees; None for its own.
        device: Device of torch.
        seeds: Training runs of the chosen settings, 0 to ``seeds - 1``.
        num_steps: Optimizer steps of each run.
        batch_size: Training pictures a step.
        precision: Precision of training, see ``TuneConfig``. Not ``auto``: rows of one table may come from
            several machines.
        folders: Folders of the tasks that are read from one.
    """

    backbone: str
    image_size: int | None
    device: str
    seeds: int
    num_steps: int
    batch_size: int
    precision: Precision
    folders: dict[str, Path]

    def load_backbone(self) -> Backbone:
        """The backbone with its trained weights: accuracies of random weights say nothing."""
        device = torch.device(self.device)
        if self.backbone == "tiny":
            return find_backbone("tiny", device)
        return load_backbone(self.backbone, device, image_size=self.image_size)

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
        print(f"{row['task']}  {row['method']}  {describe(row)}", file=sys.stderr, flush=True)
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

    def find(seed: int) -> Problem:
        return find_problem(task, seed, backbone, protocol.folders)

    return {"task": task, "method": method, **measure(backbone, find, method, protocol)}


def _write(file: Path, text: str) -> None:
    """Write the file atomically: it holds hours of work."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


def measure(
    backbone: Backbone,
    find: Callable[[int], Problem],
    method: str,
    protocol: Protocol,
    fit_all: Fitter = fit_all,
) -> dict[str, Any]:
    """A row: the settings that validation chose, and the test accuracy of each seed.

    Args:
        backbone: Backbone of all runs.
        find: The task's splits by seed. One seed's pictures are held at a time.
        method: A name of ``ALL``.
        protocol: Conditions of all rows.
        fit_all: Trains candidates.
    """
    clock_s = time.monotonic()
    settings, at_edge = ALL[method][0], []
    if len(ALL[method]) > 1:
        data, effort = find(0).search, protocol.effort(0, SEARCH_SHARE)
        settings, at_edge = _search(
            ALL[method], lambda candidates: fit_all(backbone, data, method, candidates, effort)
        )
    search_s, clock_s = time.monotonic() - clock_s, time.monotonic()
    finals: list[Fit] = []
    peaks = []
    for seed in range(protocol.seeds):
        final, effort = find(seed).final, protocol.effort(seed)
        train = partial(fit_all, backbone, final, method, [settings], effort)
        peaks.append(peak_bytes(lambda train=train: finals.extend(train()), backbone.device))
    return {
        "settings": settings,
        "at_edge": at_edge,
        "accuracies": [fit.accuracy for fit in finals],
        "num_test": len(final.held_out),
        "num_trained": finals[0].num_trained,
        "peak_bytes": max((peak for peak in peaks if peak is not None), default=None),
        "search_s": round(search_s, 2),
        "fit_s": round((time.monotonic() - clock_s) / protocol.seeds, 2),
    }


def _search(
    candidates: Sequence[Settings], fit: Callable[[Sequence[Settings]], list[Fit]]
) -> tuple[Settings, list[str]]:
    """The best settings by validation, and the names of those whose value is the least or greatest tried."""
    tried = list(candidates)
    fits = fit(tried)
    for _ in range(MAX_EXTENSIONS):
        further = _step_out(tried[_best(fits)], tried)
        if further is None:
            break
        tried.append(further)
        fits += fit([further])
    chosen = tried[_best(fits)]
    values = {name: {settings[name] for settings in tried} for name in chosen}
    edges = [
        name
        for name, value in chosen.items()
        if len(values[name]) > 1 and value in (min(values[name]), max(values[name]))
    ]
    return chosen, edges


def _best(fits: Sequence[Fit]) -> int:
    return max(range(len(fits)), key=lambda i: (fits[i].accuracy, -fits[i].val_loss))


def _step_out(best: Settings, tried: Sequence[Settings]) -> Settings | None:
    """The best settings with a learning rate beyond the edge that theirs lies on; None within the grid."""
    rate = best.get("learning_rate")
    if rate is None:
        # Each kind and start has a rate of its own.
        return None
    rates = sorted(
        settings["learning_rate"] for settings in tried if {**settings, "learning_rate": rate} == best
    )
    if len(rates) < 2 or rates[0] < rate < rates[-1]:
        return None
    neighbour = rates[1] if rate == rates[0] else rates[-2]
    return {**best, "learning_rate": float(f"{rate * rate / neighbour:.6g}")}
