"""Time until an interrupted run tunes again.

A run with simulated tunings is interrupted half-way, as by Ctrl-C, and started again; after a twentieth more
it is interrupted again. *Resumed* is when the first task of the second half is leased. Records that an
interruption leaves unwritten wait in the spool.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.fleet.account import Account
from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.running import GOAL_PLAN_S, NUM_WORKERS, account_of, verdict
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.fleet.watch import Watched, run_fleet_job
from tests.benchmarks.harness import Case, Report

__all__ = ["measure_resume"]


def measure_resume(report: Report, fleet: Fleet) -> None:
    """Interrupt a run half-way and start it again."""
    num_tasks = fleet.num_tasks
    with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
        folder = Path(name)
        write_fleet(folder, fleet)
        options = JobOptions(num_workers=NUM_WORKERS, is_simulated=True, stop_after=num_tasks // 2)
        first = run_fleet_job(folder, options)
        second = run_fleet_job(folder, replace(options, stop_after=max(1, num_tasks // 20)))
        account = account_of(folder, second)
    result = second.result
    assert first.result["num_done"] + result["num_to_tune"] == num_tasks, (first.result, result)
    assert not result["failed"], result
    resumed_s = result["imports_s"] + result["plan_s"] + account.start_up_s
    report.add(
        Case(
            settings={"part": "resume", "tasks": num_tasks, "workers": NUM_WORKERS},
            rounds=1,
            seconds={
                "resumed": resumed_s,
                "plan": result["plan_s"],
                "start-up": account.start_up_s,
                "after the last publication": account.tail_s,
                "whole command": second.wall_s,
            },
            ratios=[],
            facts=_facts(first, second, account, resumed_s),
        )
    )


def _facts(first: Watched, second: Watched, account: Account, resumed_s: float) -> dict[str, Any]:
    result = second.result
    interrupted_s = first.result["run_ended_s"] - first.result["interrupted_s"]
    rate = round(account.num_tasks / account.work_s, 2) if account.work_s else None
    return {
        "done before, and after": [first.result["num_done"], result["num_done"]],
        "goal": f"resumed under {GOAL_PLAN_S:g} s: {verdict(resumed_s < GOAL_PLAN_S)}",
        "store, while planning": result["plan_calls"],
        "store, whole second run": result["calls"],
        "records in the spool after each run": [first.result["backlog"], result["backlog"]],
        "first run, from Ctrl-C to its end, s": round(interrupted_s, 2),
        "second run, tasks a second": rate,
        "second run, processor's seconds": {k: round(seconds) for k, seconds in second.cpu_s.items()},
        "driver, peak MiB": second.peak_mib("driver"),
        "ledger, peak MiB": second.peak_mib("ledger"),
    }
