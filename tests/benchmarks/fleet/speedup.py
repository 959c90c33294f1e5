"""Speed-up: the same tasks on one worker of one thread, on one of two threads, and on two."""

import tempfile
from pathlib import Path

from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.running import account_of, run_sound
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.harness import Case, Report, paired_ratio

__all__ = ["measure_speedup"]


def measure_speedup(report: Report, fleet: Fleet) -> None:
    """The same tasks on one worker and on two."""
    rows = {
        "one worker, one thread": JobOptions(num_workers=1, num_cpus=1),
        "one worker, two threads": JobOptions(num_workers=1),
        "two workers": JobOptions(num_workers=2),
    }
    work_s, wall_s = {}, {}
    for row, options in rows.items():
        with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
            folder = Path(name)
            write_fleet(folder, fleet)
            watched = run_sound(folder, fleet.num_tasks, options)
            work_s[row] = account_of(folder, watched, options.num_workers).work_s
            wall_s[row] = watched.wall_s
    pairs = [("two workers", row) for row in rows if row != "two workers"]
    report.add(
        Case(
            settings={"part": "speedup", "tasks": fleet.num_tasks, "epochs": fleet.settings["epochs"]},
            rounds=1,
            seconds=work_s,
            ratios=[paired_ratio(of, against, [work_s[against]], [work_s[of]]) for of, against in pairs],
            facts={"whole command, s": {row: round(seconds, 1) for row, seconds in wall_s.items()}},
        )
    )
