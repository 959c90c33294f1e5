"""Cost of a worker's death: the same tasks under each executor, undisturbed, and with workers killed."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.settings import EXECUTORS
from tests.benchmarks.fleet.account import read_events
from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.running import account_of
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.fleet.watch import run_fleet_job
from tests.benchmarks.harness import Case, Report

__all__ = ["measure_failures"]


def measure_failures(report: Report, fleet: Fleet, *, num_kills: int, kill_every_s: float) -> None:
    """Seconds and leases of a run, undisturbed and with workers killed, by executor."""
    seconds: dict[str, float] = {}
    facts: dict[str, Any] = {}
    for executor in EXECUTORS:
        quiet = JobOptions(executor=executor, pack=1)
        for row, options in {
            f"{executor}, undisturbed": quiet,
            f"{executor}, with deaths": replace(quiet, num_kills=num_kills, kill_every_s=kill_every_s),
        }.items():
            with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
                folder = Path(name)
                write_fleet(folder, fleet)
                watched = run_fleet_job(folder, options)
                result = watched.result
                assert result["num_done"] == fleet.num_tasks, result
                account = account_of(folder, watched, quiet.num_workers)
                leases = [event for event in read_events(folder) if event.kind == "leased"]
            seconds[row] = account.work_s
            facts[row] = {"workers killed": result["num_killed"], "leases": len(leases)}
    for executor in EXECUTORS:
        lost_s = seconds[f"{executor}, with deaths"] - seconds[f"{executor}, undisturbed"]
        num_killed = facts[f"{executor}, with deaths"]["workers killed"]
        facts[f"{executor}: a death costs, s"] = round(lost_s / max(1, num_killed), 1)
    report.add(
        Case(
            settings={"part": "failures", "tasks": fleet.num_tasks, "workers": JobOptions().num_workers},
            rounds=1,
            seconds=seconds,
            ratios=[],
            facts=facts,
        )
    )
