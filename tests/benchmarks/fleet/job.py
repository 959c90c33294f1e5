"""The main job in a subprocess, as ``ship tune`` runs it, with the times of its phases.

``python -m tests.benchmarks.fleet.job FOLDER OPTIONS`` runs the fleet in the folder and leaves a result
there.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from rich.console import Console

from orchestrator.cli.plan_report import print_plan
from orchestrator.cli.progress import ProgressView
from orchestrator.manifest.model import PoolSettings
from orchestrator.manifest.request import Request
from orchestrator.planning.spec import TaskSpec
from orchestrator.settings import Executor, Settings
from orchestrator.store.objects.open import ObjectStore, open_objects
from orchestrator.train.executor import Callbacks, RunOptions, RunSummary, run_tasks
from orchestrator.train.job import Job, Services, prepare_job
from orchestrator.train.ledger.status import RunStatus
from ship.backbone import Backbone
from tests.benchmarks.fleet.simulation import make_simulated_runner
from tests.benchmarks.fleet.tasks import MANIFEST, fleet_settings

__all__ = ["RESULT", "JobOptions"]

RESULT = "result.json"
OUTPUT = "output.txt"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of a run.

    Attributes:
        num_workers: Number of workers.
        num_cpus: CPUs of Ray; None for all of the machine.
        is_simulated: Publish prepared artifacts in place of tuned ones.
        plan_only: Plan without running.
        stop_after: Number of tasks after which the run is interrupted, as by Ctrl-C.
        executor: Executor of the workers.
        pack: Maximum number of tasks in a pack; None for as many as fit and pay.
        num_kills: Number of workers to kill.
        kill_every_s: Seconds between two kills.
    """

    num_workers: int = 2
    num_cpus: int | None = None
    is_simulated: bool = False
    plan_only: bool = False
    stop_after: int | None = None
    executor: Executor = "train"
    pack: int | None = None
    num_kills: int = 0
    kill_every_s: float = 0.0


class Killer:
    """Kills a worker every few seconds while one is tuning a task."""

    def __init__(self, options: JobOptions) -> None:
        self._options = options
        self._due_s: float | None = None
        self.num_killed = 0

    def look(self, run_status: RunStatus) -> None:
        """Kill a worker if it is time."""
        workers = [task.worker for task in run_status.tasks if task.state == "leased" and task.epoch]
        if not workers or self.num_killed >= self._options.num_kills:
            return
        if self._due_s is None:
            self._due_s = time.monotonic() + self._options.kill_every_s
        if time.monotonic() >= self._due_s:
            os.kill(int(str(workers[0]).rpartition(":")[2].partition("-")[0]), signal.SIGKILL)
            self.num_killed += 1
            self._due_s = time.monotonic() + self._options.kill_every_s


class CountedObjects:
    """A store that counts its requests."""

    def __init__(self, objects: ObjectStore, calls: Counter[str]) -> None:
        self._objects, self._calls = objects, calls

    def __getattr__(self, name: str) -> Any:
        self._calls[name] += 1
        return getattr(self._objects, name)


def main(folder: Path, options: JobOptions) -> None:
    """Plan and run, and write times and counts to ``result.json``."""
    began_s, calls = time.time(), Counter[str]()
    result: dict[str, Any] = {"imports_s": began_s - psutil.Process().create_time()}
    pool = PoolSettings(max_workers=options.num_workers, executor=options.executor, max_fused=options.pack)
    request = Request(pool=pool)
    job = prepare_job(
        str(folder / MANIFEST),
        lambda store: fleet_settings(folder, store),
        request=request,
        will_run=not options.plan_only,
        open_services=lambda settings: _open_services(settings, options, calls),
    )
    result |= {"plan_s": time.time() - began_s, "plan_calls": dict(calls)}
    result |= {"num_to_tune": len(job.plan.to_tune), "num_to_reuse": len(job.plan.to_reuse)}
    with (folder / OUTPUT).open("w") as file:
        console = Console(file=file, width=120)
        if options.plan_only:
            began_s = time.time()
            print_plan(console, job.plan)
            result["print_s"] = time.time() - began_s
        else:
            _run(job, console, options, result)
    # Time of this process, without the workers.
    result |= {"calls": dict(calls), "cpu_s": round(time.process_time(), 2)}
    (folder / RESULT).write_text(json.dumps(result))


def _open_services(settings: Settings, options: JobOptions, calls: Counter[str]) -> Services:
    def simulate(
        specs: Sequence[TaskSpec], backbone: Backbone, settings: Settings, run: RunOptions, calls: Callbacks
    ) -> RunSummary:
        return run_tasks(specs, backbone, settings, replace(run, make_runner=make_simulated_runner), calls)

    services = Services.open(settings, CountedObjects(open_objects(settings.store), calls))
    return replace(services, run_tasks=simulate) if options.is_simulated else services


def _run(job: Job, console: Console, options: JobOptions, result: dict[str, Any]) -> None:
    view, stop_after, killer = ProgressView(console), options.stop_after, Killer(options)

    def show(run_status: RunStatus) -> None:
        nonlocal stop_after
        view.update(run_status)
        killer.look(run_status)
        if stop_after is not None and run_status.counts()["done"] >= stop_after:
            stop_after = None
            result["interrupted_s"] = time.time()
            os.kill(os.getpid(), signal.SIGINT)

    with nullcontext() if options.num_cpus is None else _ray_of(options.num_cpus):
        result["run_began_s"] = time.time()
        report = job.run(on_progress=show)
        result["run_ended_s"] = time.time()
    summary = report.summary
    result["num_killed"] = killer.num_killed
    result |= {"num_done": len(summary.done), "failed": summary.failed, "backlog": report.backlog.num_records}


@contextmanager
def _ray_of(num_cpus: int) -> Iterator[None]:
    """A Ray with ``num_cpus`` CPUs, and so as many threads a worker."""
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ship-ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="WARNING",
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), JobOptions(**json.loads(sys.argv[2])))
