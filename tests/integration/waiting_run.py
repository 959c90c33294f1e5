"""A run on the cluster at ``RAY_ADDRESS`` whose task begins and never ends: a driver to be killed.

``python -m tests.integration.waiting_run FOLDER EXECUTOR`` makes ``FOLDER/begun`` when a worker has the task.
"""

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from orchestrator.manifest.model import PoolSettings
from orchestrator.settings import Executor, Settings
from orchestrator.train.executor import Callbacks, RunOptions, RunSummary, run_tasks
from orchestrator.train.worker.loop import Hooks, PublishedTask, WorkerContext
from tests.unit.orchestrator.train.fakes import Spec

__all__ = ["BEGUN", "WAITS", "run"]

BEGUN = "begun"
WAITS = "waits"


class Weights:
    """As much of a backbone as the pool looks at."""

    def to_arrays(self) -> tuple[dict[str, str], dict[str, np.ndarray]]:
        return {"name": "none"}, {"weight": np.zeros(1, dtype=np.float32)}


@dataclass(frozen=True)
class Runner:
    """Publishes a task at once, but for the one that waits for ever."""

    folder: Path

    def __call__(self, spec: Spec, hooks: Hooks) -> PublishedTask:
        if spec.name == WAITS:
            (self.folder / BEGUN).touch()
            threading.Event().wait()
        return PublishedTask(digest=spec.key, uri=spec.name)


def make_runner(context: WorkerContext) -> Runner:
    return Runner(Path(context.store_url))


def run(folder: Path, executor: Executor, task: str) -> RunSummary:
    """Run a task on the cluster that this process has joined, or else on the one at ``RAY_ADDRESS``."""
    return run_tasks(
        [cast("Any", Spec(task))],
        cast("Any", Weights()),
        Settings.from_env(os.environ, home=str(folder / "home"), store=str(folder)),
        RunOptions(pool=PoolSettings(max_workers=1, executor=executor), make_runner=cast("Any", make_runner)),
        Callbacks(),
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), cast("Executor", sys.argv[2]), WAITS)
