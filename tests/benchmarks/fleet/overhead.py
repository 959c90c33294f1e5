"""Overhead of orchestration: tiny tasks on two workers, by where the time goes.

*Orchestration a task* is what the whole run takes beyond what ``ship.tuning.run.tune`` and
``ship.artifact.making.make_artifact`` take for each task in as many plain processes of one thread side by
side, without Ray, store or tracking (``alone``). It counts the start of Ray and of the workers, data,
publishing, recording, the end, and what the driver takes from the workers by being busy beside them. It is
given in seconds of the clock (on two workers, two tasks run at once), in worker's seconds (twice that), and
in processor's seconds of all processes, which other work changes less.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.fleet.account import Account, growth_kb
from tests.benchmarks.fleet.alone import measure_alone
from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.running import NUM_WORKERS, account_of, run_sound, verdict
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.fleet.watch import Watched
from tests.benchmarks.harness import Case, Report

__all__ = ["measure_overhead"]

GOAL_S = 0.15


def measure_overhead(report: Report, fleet: Fleet) -> None:
    """Seconds of orchestration a task, and whether memory stays flat."""
    with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
        folder = Path(name)
        write_fleet(folder, fleet)
        alone_s, alone_cpu_s = measure_alone(folder, num_processes=NUM_WORKERS)
        watched = run_sound(folder, fleet.num_tasks, JobOptions(num_workers=NUM_WORKERS))
        account = account_of(folder, watched)
    report.add(
        Case(
            settings={"part": "overhead", "tasks": fleet.num_tasks, "workers": NUM_WORKERS},
            rounds=1,
            seconds={"a task": account.run_s / fleet.num_tasks},
            ratios=[],
            facts=_time_facts(watched, account, alone_s, alone_cpu_s) | _memory_facts(watched, account),
        )
    )


def _time_facts(watched: Watched, account: Account, alone_s: float, alone_cpu_s: float) -> dict[str, Any]:
    num_tasks, result = account.num_tasks, watched.result
    overhead_s = account.run_s * NUM_WORKERS / num_tasks - alone_s
    clock_s = overhead_s / NUM_WORKERS
    cpu_s = {kind: round(seconds / num_tasks, 4) for kind, seconds in watched.cpu_s.items()}
    return {
        "orchestration a task, clock's seconds": round(clock_s, 4),
        "orchestration a task, worker's seconds": round(overhead_s, 4),
        "orchestration a task, processor's seconds": round(sum(cpu_s.values()) - alone_cpu_s, 4),
        "goal": f"under {GOAL_S} clock's seconds: {verdict(clock_s < GOAL_S)}",
        "a task without us, clock's and processor's seconds": [round(alone_s, 4), round(alone_cpu_s, 4)],
        "processor's seconds a task": cpu_s,
        "worker's seconds a task": account.breakdown(),
        "seconds": {name: round(result[name], 2) for name in ("imports_s", "plan_s")}
        | {name: round(asdict(account)[name], 2) for name in ("start_up_s", "work_s", "tail_s")},
    }


def _memory_facts(watched: Watched, account: Account) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for kind in ("driver", "ledger"):
        tenth, last = growth_kb(watched.samples, account.published_s, kind)
        growth = (last - tenth) / max(1, 0.9 * account.num_tasks)
        facts[f"{kind}, MiB at a tenth and at the end"] = [round(tenth / 1024), round(last / 1024)]
        facts[f"{kind}, KB more a task"] = round(growth, 2)
    return facts
