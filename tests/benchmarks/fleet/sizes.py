"""Fleets that the benchmarks measure: tiny tasks, many tasks that are hardly there, and long ones."""

import tempfile
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.fleet.alone import measure_alone
from tests.benchmarks.fleet.tasks import Fleet, write_fleet

__all__ = ["long_fleet", "many_fleet", "tiny_fleet"]


def tiny_fleet(backbone: str, num_tasks: int) -> Fleet:
    """Tasks that take next to nothing."""
    settings = {"epochs": 2, "num_attribute": 4, "batch_size": 8}
    return Fleet(num_tasks=num_tasks, settings=settings, backbone=backbone)


def many_fleet(backbone: str, num_tasks: int) -> Fleet:
    """Tasks that are planned, and whose tuning is at most simulated."""
    return replace(tiny_fleet(backbone, num_tasks), num_train=1, num_test=1, side=8)


def long_fleet(backbone: str, num_tasks: int, long_s: float | None) -> Fleet:
    """Tasks of which each is tuned for ``long_s`` seconds alone on one core; None for two epochs."""
    settings = {"epochs": 2, "num_attribute": 4, "batch_size": 32}
    fleet = Fleet(num_tasks=num_tasks, num_train=16, settings=settings, backbone=backbone)
    if long_s is None:
        return fleet
    with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
        write_fleet(Path(name), replace(fleet, num_tasks=4))
        # By the processor's time: other work on the machine must not make the tasks shorter.
        few_s, more_s = (measure_alone(Path(name), settings={"epochs": epochs})[1] for epochs in (2, 22))
    epoch_s = (more_s - few_s) / 20
    epochs = max(2, round(2 + (long_s - few_s) / epoch_s))
    return replace(fleet, settings={**settings, "epochs": epochs})
