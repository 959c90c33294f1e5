"""A fleet of tasks through the main job: what it costs beside tuning, how it scales, and what Ray Tune takes.

Every run is a process of its own with a store, an MLflow and a Ray of its own, in a temporary folder. Parts:

- ``overhead``: tiny tasks on two workers. *Orchestration a task* is what the whole run takes beyond what
  ``ship.tuning.tune.tune`` and ``ship.artifact.making.make_artifact`` take for each task in as many plain
  processes of one thread side by side, without Ray, store or tracking (``fleet_alone``). It counts the start
  of Ray and of the workers, data, publishing, recording, the end, and what the driver takes from
  the workers by being busy beside them. It is told in seconds of the clock (on two workers, two
  tasks pass at once), in worker's seconds (twice that), and in processor's seconds of all processes, which
  other work changes less.
- ``plan``: from the manifest to a printed plan, nothing being published.
- ``resume``: a run with simulated tunings is interrupted half-way, as by Ctrl-C, and started again; after a
  twentieth more it is interrupted again. *Resumed* is when the first task of the second half is taken up.
  What the recorder has not written by an interruption waits in the spool.
- ``speedup``: the same tasks on one worker of one thread, on one of two threads, and on two.
- ``raytune``: the same tasks as a trial each.
- ``memory`` and ``failures``: see ``fleet_pool``.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.fleet.account import growth_kb, read_account, read_events
from tests.benchmarks.fleet.alone import measure_alone
from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.pool import LargeBackbone, measure_failures, measure_memory
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.fleet.watch import Watched, run_fleet_job, watch
from tests.benchmarks.harness import Case, Ratio, Report

__all__ = ["LEGEND", "PARTS", "FleetSizes", "run"]

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
GOAL_OVERHEAD_S, GOAL_PLAN_S, GOAL_RATE = 0.15, 60.0, 5.0


@dataclass(frozen=True, kw_only=True)
class FleetSizes:
    """How large the fleets are.

    Attributes:
        backbone: Of all tasks.
        num_tiny: Tasks of ``overhead``.
        num_many: Tasks of ``plan`` and ``resume``.
        num_long: Tasks of ``speedup`` and ``raytune``.
        long_s: Seconds that tuning one of these is to take on one core; None for two epochs.
        num_kills: Workers that are killed in ``failures``.
        large: Backbone of ``memory``.
    """

    backbone: str = "bundled"
    num_tiny: int = 500
    num_many: int = 10_000
    num_long: int = 12
    long_s: float | None = 10.0
    num_kills: int = 3
    large: LargeBackbone = field(default_factory=LargeBackbone)

    @classmethod
    def quick(cls) -> "FleetSizes":
        """To see whether it runs."""
        return cls(
            backbone="tiny",
            num_tiny=4,
            num_many=8,
            num_long=3,
            long_s=None,
            num_kills=1,
            large=LargeBackbone.quick(),
        )

    def with_tasks(self, number: int) -> "FleetSizes":
        """As many tasks in every part."""
        return replace(self, num_tiny=number, num_many=number, num_long=number)

    @property
    def tiny(self) -> Fleet:
        """Tasks that take next to nothing."""
        settings = {"epochs": 2, "num_attribute": 4, "batch_size": 8}
        return Fleet(num_tasks=self.num_tiny, settings=settings, backbone=self.backbone)

    @property
    def many(self) -> Fleet:
        """Tasks that are planned, and at most said to be tuned."""
        return replace(self.tiny, num_tasks=self.num_many, num_train=1, num_test=1, side=8)


def run(report: Report, *, sizes: FleetSizes, parts: Sequence[str]) -> None:
    """Measure some of ``PARTS``."""
    for part in parts:
        PARTS[part](report, sizes)


def measure_overhead(report: Report, sizes: FleetSizes) -> None:
    """Seconds of orchestration a task, and whether memory stays flat."""
    with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
        folder = Path(name)
        write_fleet(folder, sizes.tiny)
        alone_s, alone_cpu_s = measure_alone(folder, num_processes=NUM_WORKERS)
        watched = _run_sound(folder, sizes.num_tiny, JobOptions(num_workers=NUM_WORKERS))
        result = watched.result
        account = read_account(folder, result["run_began_s"], result["run_ended_s"], NUM_WORKERS)
        overhead_s = account.run_s * NUM_WORKERS / sizes.num_tiny - alone_s
        clock_s = overhead_s / NUM_WORKERS
        cpu_s = {kind: round(seconds / sizes.num_tiny, 4) for kind, seconds in watched.cpu_s.items()}
        facts: dict[str, Any] = {
            "orchestration a task, clock's seconds": round(clock_s, 4),
            "orchestration a task, worker's seconds": round(overhead_s, 4),
            "orchestration a task, processor's seconds": round(sum(cpu_s.values()) - alone_cpu_s, 4),
            "goal": f"under {GOAL_OVERHEAD_S} clock's seconds: {_verdict(clock_s < GOAL_OVERHEAD_S)}",
            "a task without us, clock's and processor's seconds": [round(alone_s, 4), round(alone_cpu_s, 4)],
            "processor's seconds a task": cpu_s,
            "worker's seconds a task": account.breakdown(),
            "seconds": {name: round(result[name], 2) for name in ("imports_s", "plan_s")}
            | {name: round(asdict(account)[name], 2) for name in ("start_up_s", "work_s", "tail_s")},
        }
        for kind in ("driver", "ledger"):
            tenth, last = growth_kb(watched.samples, account.published_s, kind)
            growth = (last - tenth) / max(1, 0.9 * sizes.num_tiny)
            facts[f"{kind}, MiB at a tenth and at the end"] = [round(tenth / 1024), round(last / 1024)]
            facts[f"{kind}, KB more a task"] = round(growth, 2)
        report.add(
            Case(
                settings={"part": "overhead", "tasks": sizes.num_tiny, "workers": NUM_WORKERS},
                rounds=1,
                seconds={"a task": account.run_s / sizes.num_tiny},
                ratios=[],
                facts=facts,
            )
        )


def measure_plan(report: Report, sizes: FleetSizes) -> None:
    """Time to plan, of tasks that the manifest lists and of those that it finds."""
    for is_listed in (False, True):
        with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
            folder = Path(name)
            write_fleet(folder, replace(sizes.many, is_listed=is_listed))
            watched = run_fleet_job(folder, JobOptions(plan_only=True))
            result = watched.result
            assert result["num_to_tune"] == sizes.num_many, result
            facts = {
                "store": result["calls"],
                "driver, peak MiB": watched.peak_mib("driver"),
                "goal": f"under {GOAL_PLAN_S:g} s: {_verdict(watched.wall_s < GOAL_PLAN_S)}",
            }
            where = "listed" if is_listed else "found"
            report.add(
                Case(
                    settings={"part": "plan", "tasks": sizes.num_many, "manifest": where},
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


def measure_resume(report: Report, sizes: FleetSizes) -> None:
    """Interrupt a run half-way and start it again."""
    with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
        folder = Path(name)
        write_fleet(folder, sizes.many)
        half = sizes.num_many // 2
        options = JobOptions(num_workers=NUM_WORKERS, is_simulated=True, stop_after=half)
        first = run_fleet_job(folder, options)
        second = run_fleet_job(folder, replace(options, stop_after=max(1, sizes.num_many // 20)))
        result = second.result
        account = read_account(folder, result["run_began_s"], result["run_ended_s"], NUM_WORKERS)
        resumed_s = result["imports_s"] + result["plan_s"] + account.start_up_s
        assert first.result["num_done"] + result["num_to_tune"] == sizes.num_many, (first.result, result)
        assert not result["failed"], result
        interrupted_s = first.result["run_ended_s"] - first.result["interrupted_s"]
        facts = {
            "done before, and after": [first.result["num_done"], result["num_done"]],
            "goal": f"resumed under {GOAL_PLAN_S:g} s: {_verdict(resumed_s < GOAL_PLAN_S)}",
            "store, while planning": result["plan_calls"],
            "store, whole second run": result["calls"],
            "records in the spool after each run": [first.result["backlog"], result["backlog"]],
            "first run, from Ctrl-C to its end, s": round(interrupted_s, 2),
            "second run, tasks a second": round(account.num_tasks / account.work_s, 2)
            if account.work_s
            else None,
            "second run, processor's seconds": {k: round(seconds) for k, seconds in second.cpu_s.items()},
            "driver, peak MiB": second.peak_mib("driver"),
            "ledger, peak MiB": second.peak_mib("ledger"),
        }
        report.add(
            Case(
                settings={"part": "resume", "tasks": sizes.num_many, "workers": NUM_WORKERS},
                rounds=1,
                seconds={
                    "resumed": resumed_s,
                    "plan": result["plan_s"],
                    "start-up": account.start_up_s,
                    "after the last publication": account.tail_s,
                    "whole command": second.wall_s,
                },
                ratios=[],
                facts=facts,
            )
        )


def measure_speedup(report: Report, sizes: FleetSizes) -> None:
    """The same tasks on one worker and on two."""
    rows = {
        "one worker, one thread": JobOptions(num_workers=1, num_cpus=1),
        "one worker, two threads": JobOptions(num_workers=1),
        "two workers": JobOptions(num_workers=2),
    }
    fleet = long_fleet(sizes)
    work_s, wall_s = {}, {}
    for row, options in rows.items():
        with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
            folder = Path(name)
            write_fleet(folder, fleet)
            watched = _run_sound(folder, sizes.num_long, options)
            result = watched.result
            account = read_account(folder, result["run_began_s"], result["run_ended_s"], options.num_workers)
            work_s[row], wall_s[row] = account.work_s, watched.wall_s
    pairs = [("two workers", row) for row in rows if row != "two workers"]
    report.add(
        Case(
            settings={"part": "speedup", "tasks": sizes.num_long, "epochs": fleet.settings["epochs"]},
            rounds=1,
            seconds=work_s,
            ratios=[_ratio(of, against, work_s[against] / work_s[of]) for of, against in pairs],
            facts={"whole command, s": {row: round(seconds, 1) for row, seconds in wall_s.items()}},
        )
    )


def measure_raytune(report: Report, sizes: FleetSizes) -> None:
    """Tasks an hour and memory, ours and Ray Tune's, of tiny tasks and of long ones."""
    tiny = replace(sizes.tiny, num_tasks=2 * sizes.num_long)
    for label, fleet in (("tiny", tiny), ("long", long_fleet(sizes))):
        rows: dict[str, Callable[[Path], Watched]] = {
            "ours": lambda folder: run_fleet_job(
                folder, JobOptions(num_workers=NUM_WORKERS), with_shared=True
            ),
            "ray tune": lambda folder: _run_raytune(folder, reuse_actors=False),
            "ray tune, reusing actors": lambda folder: _run_raytune(folder, reuse_actors=True),
        }
        steady_s, wall_s, facts = {}, {}, {}
        for row, start in rows.items():
            with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
                folder = Path(name)
                write_fleet(folder, fleet)
                watched = start(folder)
                assert watched.result["num_done"] == fleet.num_tasks, watched.result
                wall_s[row] = watched.wall_s / fleet.num_tasks
                steady_s[row] = _steady_s(folder, watched)
                facts[f"{row}: peak PSS, MiB"] = {
                    "workers": watched.peak_mib("workers"),
                    "all processes": watched.peak_mib("driver", "ledger", "workers", "services"),
                }
        facts |= {f"{row}: tasks an hour": round(3600 / seconds) for row, seconds in steady_s.items()}
        facts |= {f"{row}: whole command, s a task": round(value, 3) for row, value in wall_s.items()}
        goal = GOAL_RATE if label == "long" else None
        report.add(
            Case(
                settings={"part": "raytune", "tasks": f"{fleet.num_tasks} {label}"},
                rounds=1,
                seconds=steady_s,
                ratios=[
                    _ratio("ours", row, steady_s[row] / steady_s["ours"], goal)
                    for row in rows
                    if row != "ours"
                ],
                facts=facts,
            )
        )


PARTS: dict[str, Callable[[Report, FleetSizes], None]] = {
    "overhead": measure_overhead,
    "plan": measure_plan,
    "resume": measure_resume,
    "speedup": measure_speedup,
    "raytune": measure_raytune,
    "memory": lambda report, sizes: measure_memory(report, sizes.large),
    "failures": lambda report, sizes: measure_failures(
        report, long_fleet(sizes), num_kills=sizes.num_kills, kill_every_s=2 * (sizes.long_s or 1.0)
    ),
}


def long_fleet(sizes: FleetSizes) -> Fleet:
    """Tasks of which each is tuned for ``long_s`` seconds alone on one core."""
    settings = {"epochs": 2, "num_attribute": 4, "batch_size": 32}
    fleet = Fleet(num_tasks=sizes.num_long, num_train=16, settings=settings, backbone=sizes.backbone)
    if sizes.long_s is None:
        return fleet
    with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
        write_fleet(Path(name), replace(fleet, num_tasks=4))
        # By the processor's time: other work on the machine must not make the tasks shorter.
        few_s, more_s = (measure_alone(Path(name), settings={"epochs": epochs})[1] for epochs in (2, 22))
    epoch_s = (more_s - few_s) / 20
    epochs = max(2, round(2 + (sizes.long_s - few_s) / epoch_s))
    return replace(fleet, settings={**settings, "epochs": epochs})


def _run_sound(folder: Path, num_tasks: int, options: JobOptions) -> Watched:
    watched = run_fleet_job(folder, options)
    assert watched.result["num_done"] == num_tasks, watched.result
    assert not watched.result["backlog"], watched.result
    return watched


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


def _ratio(of: str, against: str, speed: float, goal: float | None = None) -> Ratio:
    return Ratio(of=of, against=against, speed=speed, low=speed, high=speed, goal=goal)


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "missed"
