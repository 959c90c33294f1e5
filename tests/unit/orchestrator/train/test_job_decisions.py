"""A job of tasks that are in the store already: what its plan says, and what the gate decides again."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.cli.plan_report import plan_json, print_plan
from orchestrator.errors import RegistryError
from orchestrator.planning.spec import TaskSpec
from orchestrator.registry.versions import TASK_KEY_TAG, TaskInfo, VersionInfo
from orchestrator.store.documents.publication import make_marker
from tests.unit.orchestrator.train.plant import Plant, rows


class TwoVersions:
    """A registry with two versions of t0, the second of which serves, and one of t1, which serves."""

    def __init__(self, first: TaskSpec, other: TaskSpec) -> None:
        self.keys = {("t0", 1): first.key, ("t0", 2): "later", ("t1", 1): other.key}

    def _info(self, task: str, version: int) -> VersionInfo:
        return VersionInfo(
            version=version,
            digest=f"{task}-{version}",
            source="",
            metrics={},
            aliases=(),
            created_s=0.0,
            run_id=None,
            tags={TASK_KEY_TAG: self.keys[task, version]},
        )

    def tasks(self) -> list[TaskInfo]:
        return [
            TaskInfo(
                task=task,
                champion=self._info(task, version),
                challenger=None,
                previous=None,
                latest=version,
                updated_s=0.0,
            )
            for task, version in (("t0", 2), ("t1", 1))
        ]

    def gated_versions(self) -> dict[tuple[str, str], VersionInfo]:
        return {(task, f"{task}-{version}"): self._info(task, version) for task, version in self.keys}


@pytest.fixture
def reverted(plant: Plant) -> Plant:
    """Both tasks are in the store; of t0 the version of other settings serves."""
    specs = [task.spec for task in plant.prepare(rows(2)).plan.tasks]
    for spec in specs:
        plant.objects.put_new(
            f"published/{spec.name}/{spec.key}.json", make_marker(spec.name, spec.key, "0" * 64, 1.0)
        )
    plant.registry = TwoVersions(*specs)
    return plant


def test_a_plan_tells_what_is_in_the_store_from_what_serves(reverted: Plant) -> None:
    plan = reverted.prepare(rows(2)).plan
    told = [(task.action, task.version, task.champion) for task in plan.tasks]
    assert told == [("reuse", 1, 2), ("reuse", 1, 1)]
    printed = io.StringIO()
    print_plan(Console(file=printed, width=200), plan)
    assert "t0: in the store as version 1; version 2 serves\n" in printed.getvalue()
    assert "t1: in the store" not in printed.getvalue()
    first, second = plan_json(plan)["tasks"]
    assert [(one["version"], one["champion"]) for one in (first, second)] == [(1, 2), (1, 1)]


@pytest.mark.parametrize("promotes", [True, False])
def test_only_when_asked_the_gate_decides_again_on_what_does_not_serve(
    reverted: Plant, promotes: bool
) -> None:
    report = replace(reverted.prepare(rows(2)), promotes=promotes).run()
    assert reverted.recorder.decided == (["t0"] if promotes else [])
    assert [one.task for one in report.decided] == reverted.recorder.decided


def test_a_gate_that_cannot_be_asked_again_ends_no_run(
    reverted: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    reverted.recorder.error = RegistryError("MLflow is away")
    assert replace(reverted.prepare(rows(2)), promotes=True).run().decided == ()
    assert "version 1 of task t0 was not promoted: MLflow is away" in caplog.text
