"""Commands of the benchmark of many tasks: ``fleet overhead``, ``fleet plan`` and so on."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from tests.benchmarks.options import Command, backbone_option, json_option, quick_option

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.benchmarks.fleet.tasks import Fleet
    from tests.benchmarks.harness import Report

__all__ = ["fleet"]

# Seconds that tuning one of the long tasks takes on one core.
LONG_S = 10.0


@click.group()
def fleet() -> None:
    """Tuning many tasks: overhead, planning, resuming, speed-up, memory, failures, Ray Tune.

    Every run is a process with a store, an MLflow and a Ray of its own, in a temporary folder.

    \b
    Examples:
      python -m tests.benchmarks fleet overhead --tasks 500 --json overhead.json
      python -m tests.benchmarks fleet plan --quick
    """


def fleet_options(usual: int) -> Callable[[Command], Command]:
    """Options of a part with ``usual`` tasks."""

    def add(command: Command) -> Command:
        tasks_option = click.option("--tasks", type=click.IntRange(2), help=f"Number of tasks [{usual:,}].")
        return tasks_option(backbone_option(quick_option(json_option(command))))

    return add


@fleet.command()
@fleet_options(500)
def overhead(tasks: int | None, backbone: str | None, quick: bool, target: str | None) -> None:
    """Orchestration of tiny tasks on two workers, by where the time goes."""
    from tests.benchmarks.fleet.overhead import measure_overhead
    from tests.benchmarks.fleet.sizes import tiny_fleet

    with _report(target) as report:
        measure_overhead(report, tiny_fleet(_name(backbone, quick), tasks or (4 if quick else 500)))


@fleet.command()
@fleet_options(10_000)
def plan(tasks: int | None, backbone: str | None, quick: bool, target: str | None) -> None:
    """A plan of many tasks, from the manifest to the printed table."""
    from tests.benchmarks.fleet.planning import measure_plan

    with _report(target) as report:
        measure_plan(report, _many(tasks, backbone, quick))


@fleet.command()
@fleet_options(10_000)
def resume(tasks: int | None, backbone: str | None, quick: bool, target: str | None) -> None:
    """Half of many simulated tasks, then the same command again."""
    from tests.benchmarks.fleet.resume import measure_resume

    with _report(target) as report:
        measure_resume(report, _many(tasks, backbone, quick))


@fleet.command()
@fleet_options(12)
def speedup(tasks: int | None, backbone: str | None, quick: bool, target: str | None) -> None:
    """The same tasks on one worker of one thread, on one of two threads, and on two."""
    from tests.benchmarks.fleet.speedup import measure_speedup

    with _report(target) as report:
        measure_speedup(report, _long(tasks, backbone, quick))


@fleet.command()
@fleet_options(12)
def raytune(tasks: int | None, backbone: str | None, quick: bool, target: str | None) -> None:
    """Ray Tune with a trial a task beside the main job: twice as many tiny tasks, then long ones."""
    from tests.benchmarks.fleet.raytune import measure_raytune
    from tests.benchmarks.fleet.sizes import tiny_fleet

    with _report(target) as report:
        long = _long(tasks, backbone, quick)
        measure_raytune(report, "tiny", tiny_fleet(long.backbone, 2 * long.num_tasks))
        measure_raytune(report, "long", long)


@fleet.command()
@quick_option
@json_option
def memory(quick: bool, target: str | None) -> None:
    """Peak memory of one, two and four workers with a backbone of ViT-B's size."""
    from tests.benchmarks.fleet.memory import LargeBackbone, measure_memory

    with _report(target) as report:
        measure_memory(report, LargeBackbone.quick() if quick else LargeBackbone())


@fleet.command()
@fleet_options(12)
@click.option("--kills", type=click.IntRange(1), help="Workers that are killed [3].")
def failures(
    tasks: int | None, kills: int | None, backbone: str | None, quick: bool, target: str | None
) -> None:
    """The same tasks by each executor, undisturbed, and with workers killed."""
    from tests.benchmarks.fleet.failures import measure_failures

    with _report(target) as report:
        measure_failures(
            report,
            _long(tasks, backbone, quick),
            num_kills=kills or (1 if quick else 3),
            kill_every_s=2.0 if quick else 2 * LONG_S,
        )


def _report(target: str | None) -> "AbstractContextManager[Report]":
    from tests.benchmarks.fleet.running import LEGEND
    from tests.benchmarks.harness import open_report

    return open_report("fleet", LEGEND, target)


def _name(backbone: str | None, quick: bool) -> str:
    return backbone or ("tiny" if quick else "bundled")


def _many(tasks: int | None, backbone: str | None, quick: bool) -> "Fleet":
    from tests.benchmarks.fleet.sizes import many_fleet

    return many_fleet(_name(backbone, quick), tasks or (8 if quick else 10_000))


def _long(tasks: int | None, backbone: str | None, quick: bool) -> "Fleet":
    from tests.benchmarks.fleet.sizes import long_fleet

    return long_fleet(_name(backbone, quick), tasks or (3 if quick else 12), None if quick else LONG_S)
