"""Time of a plan: from the manifest to the printed table, nothing being published."""

import tempfile
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.running import GOAL_PLAN_S, verdict
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.fleet.watch import run_fleet_job
from tests.benchmarks.harness import Case, Report

__all__ = ["measure_plan"]


def measure_plan(report: Report, fleet: Fleet) -> None:
    """Time to plan, of tasks that the manifest lists and of those that it finds."""
    for is_listed in (False, True):
        with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
            folder = Path(name)
            write_fleet(folder, replace(fleet, is_listed=is_listed))
            watched = run_fleet_job(folder, JobOptions(plan_only=True))
            result = watched.result
            assert result["num_to_tune"] == fleet.num_tasks, result
            facts = {
                "store": result["calls"],
                "driver, peak MiB": watched.peak_mib("driver"),
                "goal": f"under {GOAL_PLAN_S:g} s: {verdict(watched.wall_s < GOAL_PLAN_S)}",
            }
            where = "listed" if is_listed else "found"
            report.add(
                Case(
                    settings={"part": "plan", "tasks": fleet.num_tasks, "manifest": where},
                    rounds=1,
                    seconds={
                        "whole command": watched.wall_s,
                        "plan": result["plan_s"],
                        "print": result["print_s"],
                    },
                    ratios=[],
                    facts=facts,
                )
            )
