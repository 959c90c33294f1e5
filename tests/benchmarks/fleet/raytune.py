"""Ray Tune with a trial a task beside the main job, on the same tasks: tasks an hour and memory."""

import tempfile
from pathlib import Path

from tests.benchmarks.fleet.account import read_events
from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.running import NUM_WORKERS
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.fleet.watch import Watched, run_fleet_job, watch
from tests.benchmarks.harness import Case, Report, paired_ratio

__all__ = ["measure_raytune"]

GOAL_RATE = 5.0


def measure_raytune(report: Report, label: str, fleet: Fleet) -> None:
    """Run one fleet by the main job and by Ray Tune; ``label`` is ``tiny`` or ``long``."""
    rows = {
        "ours": _run_ours,
        "ray tune": lambda folder: _run_raytune(folder, reuse_actors=False),
        "ray tune, reusing actors": lambda folder: _run_raytune(folder, reuse_actors=True),
    }
    steady_s, facts = {}, {}
    for row, start in rows.items():
        with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
            folder = Path(name)
            write_fleet(folder, fleet)
            watched = start(folder)
            assert watched.result["num_done"] == fleet.num_tasks, watched.result
            steady_s[row] = _steady_s(folder, watched)
        facts[f"{row}: peak PSS, MiB"] = {
            "workers": watched.peak_mib("workers"),
            "all processes": watched.peak_mib("driver", "ledger", "workers", "services"),
        }
        facts[f"{row}: tasks an hour"] = round(3600 / steady_s[row])
        facts[f"{row}: whole command, s a task"] = round(watched.wall_s / fleet.num_tasks, 3)
    goal = GOAL_RATE if label == "long" else None
    ours_s = [steady_s["ours"]]
    report.add(
        Case(
            settings={"part": "raytune", "tasks": f"{fleet.num_tasks} {label}"},
            rounds=1,
            seconds=steady_s,
            ratios=[paired_ratio("ours", row, [steady_s[row]], ours_s, goal) for row in list(rows)[1:]],
            facts=facts,
        )
    )


def _run_ours(folder: Path) -> Watched:
    return run_fleet_job(folder, JobOptions(num_workers=NUM_WORKERS), with_shared=True)


def _run_raytune(folder: Path, *, reuse_actors: bool) -> Watched:
    options = {"num_workers": NUM_WORKERS, "reuse_actors": reuse_actors}
    return watch("tests.benchmarks.fleet.raytune_job", folder, options, with_shared=True)


def _steady_s(folder: Path, watched: Watched) -> float:
    """Seconds a task from when the first is taken up to the end of the last, without what is paid once."""
    trials = watched.result.get("trials")
    if trials is None:
        events = read_events(folder)
        began_s = [event.time_s for event in events if event.kind == "leased"]
        ended_s = [event.time_s for event in events if event.kind == "published"]
    else:
        began_s, ended_s = ([trial[name] for trial in trials] for name in ("began_s", "ended_s"))
    return (max(ended_s) - min(began_s)) / len(ended_s)
