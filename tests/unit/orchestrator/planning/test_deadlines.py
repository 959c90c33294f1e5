import math

import pytest

from orchestrator.manifest.model import Terms
from orchestrator.planning.deadlines import find_late
from orchestrator.planning.spec import PlannedTask, TaskSpec
from ship.data import DataSource
from ship.settings.config import TuneConfig

NOW_S = 1_000_000.0


def make(name: str, estimate_s: float | None, due_in_s: float = math.inf, priority: int = 0) -> PlannedTask:
    deadline_s = None if due_in_s == math.inf else NOW_S + due_in_s
    spec = TaskSpec(
        name=name,
        key="0" * 64,
        source=DataSource(path="data"),
        config=TuneConfig(),
        terms=Terms(priority=priority, deadline_s=deadline_s),
        data_fingerprint="0" * 64,
        num_images=10,
    )
    return PlannedTask(
        spec=spec,
        action="tune",
        num_classes=2,
        num_held_out=5,
        estimate_s=estimate_s,
        estimate_bytes=1,
    )


def late(*tasks: PlannedTask, num_workers: int | None) -> list[str]:
    return [warning.split(":")[0] for warning in find_late(tasks, num_workers=num_workers, now_s=NOW_S)]


def test_tasks_wait_for_those_that_go_first() -> None:
    tasks = [make("a", 100, due_in_s=150), make("b", 100, due_in_s=199), make("c", 100, priority=1)]

    # On one worker c takes the first 100 s, then a, then b.
    assert late(*tasks, num_workers=1) == ["task a", "task b"]
    # On two a runs beside c, and b after one of them.
    assert late(*tasks, num_workers=2) == ["task b"]
    assert late(*tasks, num_workers=3) == []


def test_without_a_number_of_workers_only_the_certain_is_told() -> None:
    tasks = [make("a", 100, due_in_s=150), make("b", 100, due_in_s=150), make("c", 100, due_in_s=99)]

    (warning,) = find_late(tasks, num_workers=None, now_s=NOW_S)
    assert warning == (
        "task c: its deadline is in 99 s, but if it started now it is expected in 100 s; raise its priority, "
        "add workers, or tune fewer epochs"
    )


def test_a_deadline_in_the_past_is_told_whatever_the_estimate() -> None:
    (passed, unchecked) = find_late(
        [make("a", None, due_in_s=-60), make("b", None, due_in_s=60)], num_workers=1, now_s=NOW_S
    )

    assert passed == "task a: its deadline passed 60 s ago"
    assert unchecked.startswith("deadlines of 1 tasks are not checked: the speed is not known")


@pytest.mark.parametrize("num_workers", [None, 1])
def test_nothing_is_said_of_tasks_without_deadlines(num_workers: int | None) -> None:
    assert late(make("a", 1e9), make("b", None), num_workers=num_workers) == []
    assert late(num_workers=num_workers) == []
