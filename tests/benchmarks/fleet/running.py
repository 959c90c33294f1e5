"""Runs of a fleet, and constants of its benchmarks."""

from pathlib import Path

from tests.benchmarks.fleet.account import Account, read_account
from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.watch import Watched, run_fleet_job

__all__ = ["GOAL_PLAN_S", "LEGEND", "NUM_WORKERS", "account_of", "run_sound", "verdict"]

LEGEND = {
    "overhead": "tiny tasks on two workers, by where a worker's time goes",
    "plan": "a plan of many tasks, from the manifest to the printed table",
    "resume": "half of many simulated tasks, then the same command again",
    "speedup": "the same tasks on one and on two workers",
    "memory": "peak memory of one, two and four workers of a node, a page that is shared counting once",
    "failures": "the same tasks by each executor, undisturbed, and with workers killed now and then",
    "ours": "the main job on two workers: one backbone, a store, a registry, its gate and tracking",
    "ray tune": "Ray Tune, a trial and a process a task, two at once, each with its own backbone",
    "ray tune, reusing actors": "likewise with TuneConfig(reuse_actors=True)",
}
NUM_WORKERS = 2
# For a plan of 10,000 tasks, and for resuming them.
GOAL_PLAN_S = 60.0


def run_sound(folder: Path, num_tasks: int, options: JobOptions) -> Watched:
    """Run the fleet in ``folder``, all of whose tasks must be tuned and recorded."""
    watched = run_fleet_job(folder, options)
    assert watched.result["num_done"] == num_tasks, watched.result
    assert not watched.result["backlog"], watched.result
    return watched


def account_of(folder: Path, watched: Watched, num_workers: int = NUM_WORKERS) -> Account:
    """The account of the run in ``folder``."""
    return read_account(folder, watched.result["run_began_s"], watched.result["run_ended_s"], num_workers)


def verdict(is_met: bool) -> str:
    """Report of a goal."""
    return "met" if is_met else "missed"
