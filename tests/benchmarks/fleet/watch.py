"""Runs a command in a process of its own and watches the memory of it and of all that it starts."""

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
    """Memory at one moment.

    Attributes:
        time_s: Seconds since the epoch.
        kb: Kind of process to kilobytes: ``driver``, ``ledger``, ``workers`` (of Ray, but the ledger),
            ``services``.
    """

    time_s: float
    kb: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a command did.

    Attributes:
        wall_s: From its start to its end.
        result: What it left in ``result.json``.
        samples: Of memory.
        cpu_s: Processor's seconds by kind of process, as far as they were seen.
    """

    wall_s: float
    result: dict[str, Any]
    samples: list[Sample]
    cpu_s: Mapping[str, float]

    def peak_mib(self, *kinds: str) -> int:
        """The most that these kinds held together."""
        return round(
            max((sum(sample.kb.get(kind, 0) for kind in kinds) for sample in self.samples), default=0) / 1024
        )


def run_fleet_job(folder: Path, options: JobOptions, *, with_shared: bool = False) -> Watched:
    """Run a fleet that was written to the folder."""
    return watch("tests.benchmarks.fleet.job", folder, asdict(options), with_shared=with_shared)


def watch(module: str, folder: Path, options: dict[str, Any], *, with_shared: bool = False) -> Watched:
    """Run ``python -m MODULE FOLDER OPTIONS`` to its end.

    Args:
        module: Of this repository.
        folder: Where it works and leaves its result.
        options: For it, as JSON.
        with_shared: Whether pages that processes share count once, shared out among them (PSS); else each
            process's resident pages count (RSS), which takes less time to tell.
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
    """A process of Ray's is named for what it does."""
    line = " ".join(process.cmdline())
    if line.startswith("ray::LedgerActor"):
        return "ledger"
    return "workers" if line.startswith("ray::") or "default_worker.py" in line else "services"
