"""Cost of tasks without orchestration: the library's calls in plain processes.

``python -m tests.benchmarks.fleet.alone FOLDER SETTINGS`` prints clock's and processor's seconds of a task.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from ship.artifact.making import make_artifact
from ship.backbone import load_backbone
from ship.data import load_task_data
from ship.tuning.run import tune
from tests.benchmarks.fleet.tasks import read_fleet

__all__ = ["measure_alone"]

ROOT = Path(__file__).parents[3]
# The first one warms up.
NUM_TASKS = 16


def measure_alone(
    folder: Path, *, num_processes: int = 1, settings: Mapping[str, Any] | None = None
) -> tuple[float, float]:
    """Clock's and processor's seconds of a task: the mean of each process's median.

    Args:
        folder: Folder of the fleet.
        num_processes: Processes of one thread each, side by side: like workers, they share caches and memory.
        settings: Settings that replace the fleet's.
    """
    command = [sys.executable, "-m", "tests.benchmarks.fleet.alone", str(folder), json.dumps(settings or {})]
    children = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(num_processes)
    ]
    found = [json.loads(child.communicate()[0]) for child in children]
    clock_s, cpu_s = (statistics.mean(values) for values in zip(*found, strict=True))
    return clock_s, cpu_s


def main(folder: Path, settings: Mapping[str, Any]) -> None:
    """Tune tasks one after another, the first ones again if there are few."""
    torch.set_num_threads(1)
    manifest = read_fleet(folder)
    backbone = load_backbone(manifest.backbone, image_size=manifest.image_size)
    clock_s, cpu_s = [], []
    for entry in islice(cycle(manifest.tasks), NUM_TASKS):
        data = load_task_data(
            entry.source, image_size=backbone.image_size, interpolation=backbone.interpolation
        )
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        result = tune(backbone, data, replace(entry.config, **settings))
        make_artifact(entry.name, backbone, data, result)
        clock_s.append(time.perf_counter() - began_s)
        cpu_s.append(time.process_time() - cpu_began_s)
    print(json.dumps([statistics.median(clock_s[1:]), statistics.median(cpu_s[1:])]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
