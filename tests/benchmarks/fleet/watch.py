"""Runs a command in a subprocess and samples the memory of its process tree."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.fleet.job import RESULT, JobOptions

__all__ = ["Sample", "Watched", "run_fleet_job", "watch"]

ROOT = Path(__file__).parents[3]
EVERY_S = 2.0
MAX_S = 6 * 3600.0
_KB = 1024


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample of memory.

    Attributes:
        time_s: Seconds since the epoch.
        kb: Kind of process to kilobytes: ``driver``, ``ledger``, ``workers`` (of Ray, but the ledger),
            ``services``.
    """

    time_s: float
    kb: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A command that ended.

    Attributes:
        wall_s: Seconds from its start to its end.
        result: Content of ``result.json``.
        samples: Samples of memory.
        cpu_s: Processor's seconds by kind of process, up to the last sample.
    """

    wall_s: float
    result: dict[str, Any]
    samples: list[Sample]
    cpu_s: Mapping[str, float]

    def peak_mib(self, *kinds: str) -> int:
        """Peak memory of these kinds together."""
        return round(
            max((sum(sample.kb.get(kind, 0) for kind in kinds) for sample in self.samples), default=0) / 1024
        )


def run_fleet_job(folder: Path, options: JobOptions, *, with_shared: bool = False) -> Watched:
    """Run the fleet in the folder."""
    return watch("tests.benchmarks.fleet.job", folder, asdict(options), with_shared=with_shared)


def watch(module: str, folder: Path, options: dict[str, Any], *, with_shared: bool = False) -> Watched:
    """Run ``python -m MODULE FOLDER OPTIONS`` to its end.

    Args:
        module: Module of this repository.
        folder: Working folder, in which it leaves its result.
        options: Options of the module, passed as JSON.
        with_shared: Count a shared page once, divided among its processes (PSS); otherwise count each
            process's resident pages (RSS), which is faster to read.
    """
    command = [sys.executable, "-m", module, str(folder), json.dumps(options)]
    (folder / RESULT).unlink(missing_ok=True)
    samples: list[Sample] = []
    cpu_s: dict[tuple[str, int], float] = {}
    began_s = time.time()
    with (folder / "errors.txt").open("w") as errors:
        child = subprocess.Popen(command, cwd=ROOT, stdout=errors, stderr=errors)
        over = threading.Event()
        watcher = threading.Thread(
            target=_sample, args=(child.pid, samples, cpu_s, over, with_shared), daemon=True
        )
        watcher.start()
        try:
            status = child.wait(MAX_S)
        finally:
            if child.poll() is None:
                child.terminate()
            over.set()
            watcher.join()
    wall_s = time.time() - began_s
    if status != 0:
        raise RuntimeError(f"{module} ended with {status}: {(folder / 'errors.txt').read_text()[-2000:]}")
    by_kind: Counter[str] = Counter()
    for (kind, _), seconds in cpu_s.items():
        by_kind[kind] += seconds
    result = json.loads((folder / RESULT).read_text())
    return Watched(wall_s=wall_s, result=result, samples=samples, cpu_s=by_kind)


def _sample(
    pid: int,
    samples: list[Sample],
    cpu_s: dict[tuple[str, int], float],
    over: threading.Event,
    with_shared: bool,
) -> None:
    while not over.wait(EVERY_S):
        kb: dict[str, float] = {}
        with suppress(psutil.Error):
            driver = psutil.Process(pid)
            for process in [driver, *driver.children(recursive=True)]:
                # It may end at any time.
                with suppress(psutil.Error):
                    kind = "driver" if process.pid == pid else _kind(process)
                    kb[kind] = kb.get(kind, 0.0) + _held_bytes(process, with_shared) / _KB
                    used = process.cpu_times()
                    cpu_s[kind, process.pid] = used.user + used.system
        samples.append(Sample(time_s=time.time(), kb=kb))


def _held_bytes(process: psutil.Process, with_shared: bool) -> int:
    return int(process.memory_full_info().pss if with_shared else process.memory_info().rss)


def _kind(process: psutil.Process) -> str:
    """Kind of a process by its title."""
    line = " ".join(process.cmdline())
    if line.startswith("ray::LedgerActor"):
        return "ledger"
    return "workers" if line.startswith("ray::") or "default_worker.py" in line else "services"
