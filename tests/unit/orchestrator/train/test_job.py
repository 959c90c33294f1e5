"""Calls of the job to its parts, and its use of their answers; the pool itself is tested elsewhere."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.errors import ExecutionError, ManifestError, StoreError
from orchestrator.manifest.model import PoolSettings
from orchestrator.manifest.selection import Selection
from orchestrator.planning.plan import find_sure_fan_out
from orchestrator.planning.spec import TaskSpec
from orchestrator.settings import Settings
from orchestrator.store.approvals import read_rules
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.open import open_objects
from orchestrator.store.objects.protocol import StoredObject
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.run_stats import RunStats
from orchestrator.tracing import begin
from orchestrator.train.executor import Callbacks, RunOptions, RunSummary
from orchestrator.train.job import Job
from orchestrator.train.job_report import JobReport
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.run.view import RunView
from orchestrator.train.worker.task_runner import TuneTask
from ship.backbone import Backbone
from ship.tuning.tuner import Tuner
from tests.unit.orchestrator.report.page_reader import check_figures
from tests.unit.orchestrator.spans import Spans
from tests.unit.orchestrator.train.fakes import CountedObjects, work
from tests.unit.orchestrator.train.plant import Plant, rows


@pytest.mark.parametrize("num_tasks", [1, 40])
def test_a_plan_asks_the_store_twice_however_many_tasks_there_are(plant: Plant, num_tasks: int) -> None:
    plant.objects = objects = CountedObjects(plant.objects)
    assert len(plant.prepare(rows(num_tasks)).plan.to_tune) == num_tasks
    assert objects.requests == {"get": 1, "list": 1}
    assert not plant.home.exists()


def test_estimates_learn_from_what_the_last_run_took(plant: Plant) -> None:
    first = plant.prepare(rows(2))
    assert (first.plan.speed, first.plan.estimate_s) == (None, None)
    first.run()

    again = plant.prepare(f"{rows(2)}- {{name: new, data: stripes, config: {{epochs: 6}}}}\n")
    # 24 images three times in two seconds.
    assert again.plan.speed is not None
    assert (again.plan.speed.images_per_s, again.plan.speed.num_runs) == (36.0, 1)
    # One tuning, and half of one on three folds.
    assert [task.estimate_s for task in again.plan.tasks] == [2.5 * 2.0, 2.5 * 2.0, 2.5 * 4.0]


def test_a_job_that_is_traced_has_its_plan_and_its_name_below_the_command(plant: Plant) -> None:
    spans = Spans()
    with begin(spans.tracer, "ship tune", None):
        plant.prepare(rows(2)).run()
    plan, tune = spans.one("plan"), spans.one("ship tune")
    assert spans.path(plan) == ["ship tune", "plan"]
    assert dict(plan.attributes) == {"ship.tasks": 2, "ship.to_tune": 2}
    assert tune.attributes["ship.run"].startswith("tune-")


def check_report(plant: Plant, job: Job, report: JobReport) -> None:
    """A run leaves its page, the page's document and the report's values in its folder."""
    assert report.page is not None
    folder = report.page.parent
    assert folder.parent == plant.home / "runs"
    places = check_figures(report.page.read_bytes(), (folder / "report.json").read_bytes())
    assert {"tasks.0.accuracy", "tasks.0.learning_curve.probe.0.accuracy", "tasks.0.cost.epochs"} <= places
    said = json.loads((folder / "run.json").read_bytes())
    assert said == {
        "run": {"name": folder.name, "manifest": job.path, "backbone": job.plan.backbone},
        **report.to_dict(),
    }
    [task] = said["tasks"]
    assert (task["task"], task["kind"], task["serves"]) == ("a", "unknown", None)
    assert 0.0 <= task["accuracy"] <= 1.0


def test_what_workers_publish_is_what_estimates_learn_from(plant: Plant) -> None:
    def tune_here(
        specs: Sequence[TaskSpec],
        backbone: Backbone,
        settings: Settings,
        options: RunOptions,
        callbacks: Callbacks,
    ) -> RunSummary:
        ledger = Ledger(specs, LedgerPolicy(), clock=lambda: 0.0, wall=lambda: 5.0)
        work(ledger, TuneTask(Tuner(backbone), PromptStore(open_objects(settings.store))))
        callbacks.on_events(ledger.read(0)[0])
        return RunSummary(tasks=ledger.status().tasks)

    plant.run_tasks = tune_here
    job = plant.prepare(
        "tasks: [{name: a, data: stripes, config: {num_independent: 4, top_k: 4, fallback: false}}]\n"
    )
    report = job.run()
    assert report.summary.done == ("a",)
    check_report(plant, job, report)

    (learned,) = RunStats(plant.objects).read(job.backbone.fingerprint)
    assert (learned.task_key, learned.num_passes, learned.time_s) == (job.plan.tasks[0].spec.key, 24 * 3, 5.0)
    assert learned.tuning_s > 0


def test_a_store_that_is_gone_in_the_end_does_not_hide_how_the_run_went(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(LocalObjects):
        def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
            if key.startswith("published/"):
                raise StoreError("no answer from the store")
            return super().get(key, max_bytes=max_bytes)

    plant.objects = Gone(plant.home / "store")
    assert plant.prepare(rows(2)).run().summary.done == ("t0", "t1")
    assert "no answer from the store" in caplog.text


@pytest.mark.parametrize(
    ("manifest", "flag", "executor"),
    [
        ("", None, None),
        ("executor: actors\n", None, "actors"),
        ("executor: actors\n", "train", "train"),
        ("", "actors", "actors"),
    ],
)
def test_the_flag_chooses_the_executor_then_the_manifest(
    plant: Plant, manifest: str, flag: str | None, executor: str | None
) -> None:
    plant.prepare(manifest + rows(1), pool=PoolSettings(executor=flag)).run()
    assert plant.pool.settings.executor == executor


@pytest.mark.parametrize(("num_workers", "num_late"), [(1, 1), (2, 0)])
def test_deadlines_count_the_workers(plant: Plant, num_workers: int, num_late: int) -> None:
    # Weeks, so that it does not matter when this runs.
    plant.pool.tuning_s = 1e6
    plant.prepare("tasks: [{name: earlier, data: stripes}]\n").run()
    alone = "{seed: 1, fallback: false}"
    due = datetime.fromtimestamp(time.time() + 1.5e6, tz=UTC).isoformat()
    tasks = "".join(
        f"- {{name: {name}, data: stripes, deadline: '{due}', config: {alone}}}\n" for name in ("a", "b")
    )

    plan = plant.prepare(f"tasks:\n{tasks}", pool=PoolSettings(max_workers=num_workers)).plan
    assert [warning.split(":")[0] for warning in plan.warnings] == ["task b"] * num_late


def test_what_a_run_took_is_kept_when_its_pool_dies(plant: Plant) -> None:
    plant.pool.error = ExecutionError("the pool died")
    job = plant.prepare(rows(1))
    with pytest.raises(ExecutionError):
        job.run()

    assert len(RunStats(plant.objects).read(job.backbone.fingerprint)) == 1


def test_a_damaged_record_costs_estimates_and_nothing_else(plant: Plant) -> None:
    job = plant.prepare(rows(1))
    plant.objects.put(f"stats/{job.backbone.fingerprint}.json", b"{")

    job = plant.prepare(rows(1))
    assert job.plan.speed is None
    assert job.plan.warnings[0].startswith("past tunings cannot be read, so nothing is estimated: ")
    assert job.run().summary.done == ("t0",)
    assert plant.prepare(rows(1)).plan.speed is not None


def test_a_store_that_takes_no_record_costs_the_record_and_nothing_else(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    class TakesNothing(LocalObjects):
        def put_new(self, key: str, data: bytes) -> bool:
            raise StoreError(f"{key}: the disk is full")

    plant.objects = TakesNothing(plant.home / "store")
    assert plant.prepare(rows(1)).run().summary.done == ("t0",)
    assert "durations of tunings were not recorded: stats/" in caplog.text


@pytest.mark.parametrize(
    ("manifest", "request_limit", "limit"), [("max_tasks: 2\n", None, 2), ("max_tasks: 9\n", 1, 1)]
)
def test_more_tasks_than_were_meant_are_not_started(
    plant: Plant, manifest: str, request_limit: int | None, limit: int
) -> None:
    job = plant.prepare(f"{manifest}{rows(3)}", max_tasks=request_limit)

    assert any(f"the limit is {limit}" in warning for warning in job.plan.warnings)
    with pytest.raises(
        ManifestError, match=f"3 tasks would be tuned, the limit is {limit}.*nothing was started"
    ):
        job.run()
    assert plant.pool.asked == []
    assert not plant.home.exists()


def test_what_is_surely_too_much_is_refused_before_data_is_read(plant: Plant) -> None:
    (plant.folder / "empty").mkdir()
    tasks = "tasks: [{name: a, data: empty}, {name: b, data: empty}, {name: c, data: empty, budget: 1h}]\n"

    with pytest.raises(ManifestError, match=r"2 tasks would be tuned, the limit is 1;.*nothing was started"):
        plant.prepare(tasks, will_run=True, max_tasks=1)
    # What has a budget may be refused yet: only the data can tell.
    with pytest.raises(ManifestError, match=r"task a: .*empty"):
        plant.prepare(tasks, will_run=True, max_tasks=2)
    assert plant.prepare(tasks, will_run=True, max_tasks=1, keep_going=True).plan.to_tune == ()


def test_what_something_is_published_of_is_not_surely_tuned(plant: Plant) -> None:
    published = {("t0", "0" * 64)}
    manifest = plant.prepare(rows(3)).manifest

    assert find_sure_fan_out(manifest, published, 2) is None
    assert find_sure_fan_out(manifest, published, 1) is not None


def test_a_limit_that_is_raised_holds_instead_of_the_manifests(plant: Plant) -> None:
    job = plant.prepare(f"max_tasks: 2\n{rows(3)}", max_tasks=3, pool=PoolSettings(max_workers=5))

    assert job.plan.warnings == ()
    assert len(job.run().summary.done) == 3
    assert plant.pool.settings.max_workers == 5


def test_a_thousand_is_the_limit_where_none_is_given(plant: Plant) -> None:
    job = plant.prepare(rows(1))

    def of(num_tasks: int) -> Job:
        return replace(job, plan=replace(job.plan, tasks=job.plan.tasks * num_tasks))

    with pytest.raises(ManifestError, match="1001 tasks would be tuned, the limit is 1000"):
        of(1001).check_fan_out()
    of(1000).check_fan_out()


def test_only_what_is_selected_is_looked_at(plant: Plant) -> None:
    (plant.folder / "empty").mkdir()
    tasks = f"{rows(2)}- {{name: broken, data: empty}}\n"

    job = plant.prepare(tasks, selection=Selection(only=("t1",)))
    assert job.run().summary.done == ("t1",)
    with pytest.raises(ManifestError, match="broken"):
        plant.prepare(tasks)


def test_the_sound_tasks_run_and_every_other_is_reported(plant: Plant) -> None:
    (plant.folder / "empty").mkdir()
    tasks = (
        f"{rows(3)}- {{name: gone, data: none}}\n- {{name: empty, data: empty}}\n"
        "- {name: odd, data: stripes, config: {epoch: 3}}\n"
    )
    with pytest.raises(ManifestError) as caught:
        plant.prepare(tasks)
    assert len(caught.value.problems) == 2

    job = plant.prepare(tasks, keep_going=True, refused={"t2": ("corrupt: 3 of 24 images",)})
    report = job.run()
    assert plant.pool.asked == ["t0", "t1"]
    assert {task.name: task.reasons[0].split(":")[0] for task in report.refused} == {
        "gone": "tasks[3].data (line 7)",
        "odd": "tasks[5].config.epoch (line 9)",
        "empty": f"{plant.folder}/empty",
        "t2": "corrupt",
    }
    planned = RunView(plant.home).plan()
    assert planned is not None
    assert [(one["task"], one["num_images"]) for one in planned["to_tune"]] == [("t0", 24), ("t1", 24)]
    assert planned["refused"] == [{"task": one.name, "reasons": list(one.reasons)} for one in report.refused]


def test_old_records_wait_until_work_has_begun(plant: Plant) -> None:
    plant.prepare(rows(2)).run()
    assert plant.recorder.handled == [1, 1], "and nothing is asked of it before the first event"


def test_a_report_tells_what_serves_of_tuned_and_of_reused_tasks(plant: Plant) -> None:
    first = plant.prepare(rows(2)).run()
    # Nothing was recorded: there is no MLflow, and none is made to ask it.
    assert [(verdict.task, verdict.is_new, verdict.serves) for verdict in first.verdicts] == [
        ("t0", True, None),
        ("t1", True, None),
    ]
    assert not (plant.home / "mlflow.db").exists()


def test_the_store_knows_which_tasks_of_a_manifest_need_an_approval_before_they_are_tuned(
    plant: Plant,
) -> None:
    def asked() -> frozenset[str]:
        return read_rules(plant.objects).tasks

    seen: list[frozenset[str]] = []

    def tune(*arguments: Any) -> RunSummary:
        seen.append(asked())
        return plant.pool(*arguments)

    plant.run_tasks = tune
    wants = "{name: t0, data: stripes, approvals: 1}"
    assert plant.prepare(f"tasks:\n- {wants}\n- {{name: t1, data: stripes}}\n").plan.to_tune
    assert asked() == frozenset(), "a plan writes nothing"
    job = plant.prepare(f"tasks:\n- {wants}\n- {{name: t1, data: stripes}}\n")
    key = job.plan.tasks[0].spec.key
    job.run()
    assert (asked(), seen[:1]) == ({"t0"}, [{"t0"}])
    job = plant.prepare(rows(2))
    assert job.plan.tasks[0].spec.key == key, "it is no part of what is tuned"
    job.run()
    assert asked() == frozenset()
    actions = [entry.record.action for entry in AuditLog(PromptStore(plant.objects)).newest()]
    assert actions == ["approvals", "approvals", "begin"]
