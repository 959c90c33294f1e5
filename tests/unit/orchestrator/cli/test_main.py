"""Output and exit status of the console command; what the commands do is tested elsewhere."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.cli.main import cli
from orchestrator.cli.manifest import run_job
from orchestrator.cli.output import Output
from orchestrator.planning.estimates import TuningRun
from orchestrator.registry.recorder import Backlog
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.run_stats import RunStats
from orchestrator.train.executor import RunSummary
from orchestrator.train.job import Services, prepare_job
from orchestrator.train.job_report import JobReport
from orchestrator.train.ledger.status import TaskState, TaskStatus
from orchestrator.train.run.folder import hold_run
from orchestrator.train.verdicts import Verdict
from ship.backbone import load_backbone
from tests.console import run_ship as run
from tests.factories import write_backbone, write_stripes


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("SHIP_HOME", "SHIP_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    write_backbone(tmp_path / "backbone")
    write_stripes(tmp_path / "lines" / "a")
    (tmp_path / "manifest.yaml").write_text(
        "backbone: ./backbone\ntasks:\n- {name: a, data: lines/a, config: {epochs: 3, num_independent: 4}}\n"
    )
    return tmp_path


def test_plan_says_what_would_be_done_and_writes_nothing(
    plant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(plant.rglob("*"))
    assert run(monkeypatch, "plan", "manifest.yaml", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(task["name"], task["action"], task["num_images"]) for task in planned["tasks"]] == [
        ("a", "tune", 24)
    ]
    assert run(monkeypatch, "plan", "manifest.yaml") == 0
    assert "1 to tune, 0 in the store already" in capsys.readouterr().out
    assert sorted(plant.rglob("*")) == before


@pytest.fixture
def broken(plant: Path) -> Path:
    """Two sound tasks of two sites, one whose data is gone and one without images."""
    (plant / "empty").mkdir()
    (plant / "manifest.yaml").write_text(
        "backbone: ./backbone\ndefaults: {epochs: 3}\ntasks:\n"
        "- {name: a, data: lines/a, tags: {site: ulm}}\n- {name: b, data: lines/a, tags: {site: jena}}\n"
        "- {name: gone, data: nowhere}\n- {name: empty, data: empty}\n"
    )
    return plant


def test_plan_refuses_broken_tasks_alone_if_asked(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "plan", "manifest.yaml") == 2
    assert "nowhere" in capsys.readouterr().err

    assert run(monkeypatch, "plan", "manifest.yaml", "--keep-going", "--json") == 1
    planned = json.loads(capsys.readouterr().out)
    assert {task["name"]: task["action"] for task in planned["tasks"]} == {
        "a": "tune",
        "b": "tune",
        "gone": "refuse",
        "empty": "refuse",
    }
    assert run(monkeypatch, "plan", "manifest.yaml", "--keep-going", "--price", "2.5") == 1
    printed = capsys.readouterr().out
    assert "2 to tune, 0 in the store already, 2 refused; time unknown, cost unknown" in printed
    assert "refused gone: tasks[2].data (line 6): no such file or folder" in printed
    assert run(monkeypatch, "plan", "manifest.yaml", "--keep-going", "--only", "[ab]", "--json") == 0


def test_plan_of_some_tasks(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--keep-going", "--tag", "site=ulm", "--json")
    assert run(monkeypatch, "plan", "manifest.yaml", *flags) == 0
    assert [task["name"] for task in json.loads(capsys.readouterr().out)["tasks"]] == ["a"]

    assert run(monkeypatch, "plan", "manifest.yaml", "--keep-going", "--only", "emty") == 2
    assert "did you mean 'empty'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "tune"])
def test_more_tasks_than_allowed_end_with_status_2_and_nothing_is_written(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    before = sorted(broken.rglob("*"))
    flags = ("--only", "[ab]", "--keep-going", "--max-tasks", "1")
    assert run(monkeypatch, command, "manifest.yaml", *flags) == 2
    assert "2 tasks would be tuned, the limit is 1" in capsys.readouterr().err
    assert sorted(broken.rglob("*")) == before


def test_tune_with_tasks_over_budget_only_ends_with_status_1(
    plant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = TuningRun(task_key="0" * 64, num_passes=9, tuning_s=9.0, time_s=1.0)
    fingerprint = load_backbone(str(plant / "backbone")).fingerprint
    RunStats(LocalObjects(plant / ".ship" / "store")).add(fingerprint, [slow])
    text = (plant / "manifest.yaml").read_text()
    (plant / "manifest.yaml").write_text(f"{text}defaults: {{budget: 10s}}\n")

    assert run(monkeypatch, "tune", "manifest.yaml", "--json") == 1
    printed = capsys.readouterr()
    assert "refused a: over its budget: tuning takes about 180 s" in printed.err
    report = json.loads(printed.out)
    assert (report["tuned"], list(report["refused"])) == ([], ["a"])


def test_what_libraries_print_is_not_in_the_json(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run_tasks(*_: object) -> RunSummary:
        print("(raylet) a worker died")
        return RunSummary(tasks=())

    output = Output(home=str(plant / "home"), store=None)
    job = prepare_job(
        "manifest.yaml",
        output.settings,
        open_services=lambda settings: replace(Services.open(settings), run_tasks=run_tasks),
    )
    run_job(output, job, as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["tuned"] == []
    assert "(raylet) a worker died" in printed.err


@dataclass
class FakeJob:
    """A job that has ended."""

    report: JobReport

    def run(self, **callbacks: object) -> JobReport:
        return self.report

    @property
    def plan(self) -> object:
        return SimpleNamespace(tasks=())


@pytest.mark.parametrize(
    ("serves", "state", "withheld_ok", "status"),
    [
        (True, "done", False, 0),
        (None, "done", False, 0),
        (False, "done", False, 3),
        (False, "done", True, 0),
        (False, "failed", False, 1),
        (False, "failed", True, 1),
    ],
)
def test_the_exit_status_says_that_a_task_does_not_serve(
    plant: Path,
    capsys: pytest.CaptureFixture[str],
    serves: bool | None,
    state: TaskState,
    withheld_ok: bool,
    status: int,
) -> None:
    kind = {True: "serves", False: "withheld", None: "unknown"}[serves]
    report = JobReport(
        reused=(),
        summary=RunSummary(tasks=(TaskStatus(task="a", key="k", state=state),)),
        backlog=Backlog(num_records=0, folder=plant),
        verdicts=(Verdict(task="b", metrics={}, is_new=True, kind=kind, serves=serves),),
    )
    output = Output(home=str(plant / "home"), store=None)
    for as_json in (True, False):
        ended = 0
        try:
            run_job(output, FakeJob(report), as_json=as_json, withheld_ok=withheld_ok)
        except SystemExit as error:
            ended = error.code
        assert ended == status
    assert f"{int(serves is True)} of 1 serve" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "status", "kind", "said"),
    [
        (["plan", "nowhere.yaml"], 2, "ManifestError", "nowhere.yaml"),
        (["tune"], 2, "MissingParameter", "MANIFEST"),
        (["status"], 1, "ExecutionError", "no run in"),
        (["promote", "a", "zero"], 2, "BadParameter", "zero"),
        (["logs", "caps"], 1, "ExecutionError", "no run in"),
    ],
)
def test_an_error_is_json_if_that_is_asked_for(
    plant: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    kind: str,
    said: str,
) -> None:
    assert run(monkeypatch, *arguments, "--json") == status
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["exit_status"]) == (kind, status)
    assert said in error["message"]
    assert run(monkeypatch, *arguments) == status
    assert capsys.readouterr().out == ""


def test_there_is_one_json_document_if_a_command_fails_after_it(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--only", "[ab]", "--keep-going", "--max-tasks", "1", "--json")
    assert run(monkeypatch, "plan", "manifest.yaml", *flags) == 2
    assert len(json.loads(capsys.readouterr().out)["tasks"]) == 2


def test_a_second_run_is_refused_before_its_manifest_is_read(
    plant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_run(plant / ".ship", "tune-1", "lines.yaml"):
        for flags in ((), ("--check",)):
            assert run(monkeypatch, "tune", "nowhere.yaml", *flags) == 1
            said = capsys.readouterr().err
            assert "another `ship tune` runs in" in said
            assert "(lines.yaml, process" in said


def test_check_looks_at_the_tasks_that_are_meant(
    plant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "tasks:\n- {name: a, data: lines/a}\n- {name: b, data: lines/a}\n"
    (plant / "manifest.yaml").write_text(f"backbone: ./backbone\n{rows}")
    assert run(monkeypatch, "check", "manifest.yaml", "--only", "b", "--json") == 0
    assert [found["task"] for found in json.loads(capsys.readouterr().out)] == ["b"]


def test_check_and_keep_going_refuse_what_fails_the_check(
    plant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next((plant / "lines" / "a" / "train" / "direction-0").iterdir())
    picture.write_bytes(picture.read_bytes()[:60])

    assert run(monkeypatch, "tune", "manifest.yaml", "--check", "--keep-going", "--json") == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["refused"] == {"a": ["corrupt: 1 of 36 images: cannot be read"]}
    assert run(monkeypatch, "tune", "manifest.yaml", "--check") == 1
    capsys.readouterr()
    assert run(monkeypatch, "tune", "manifest.yaml", "--check", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "the check failed for a"
    assert not (plant / ".ship" / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--wrong"], "No such option"),
        (["tune"], "Missing argument"),
        (["tune", "m.yaml", "--workers", "0"], "workers"),
        (["tune", "manifest.yaml", "--max-tasks", "0"], "max-tasks"),
        (["tune", "manifest.yaml", "--only", "b"], "--only b: the manifest has no such task"),
        (["tune", "manifest.yaml", "--tag", "ulm"], "--tag ulm: expected KEY=VALUE"),
        (["tune", "m.yaml", "--workers", "2", "--min-workers", "3"], "--min-workers 3 is more than"),
        (["check", "manifest.yaml", "--only", "b"], "--only b: the manifest has no such task"),
        (["plan", "manifest.yaml", "--price", "-1"], "price"),
        (["launch"], "No such command"),
        (["promote", "a", "zero"], "zero"),
        (["canary", "a", "3", "100%"], "`ship promote a 3` gives a version all requests"),
        (["canary", "a", "3", "5"], "'5': expected a percentage"),
        (["canary", "a", "3", "101%"], "expected a percentage from 0% to below 100%"),
        (["canary", "a", "3", "nan%"], "expected a percentage"),
        (["canary", "a", "3"], "`ship canary a 4 5%`, or --stop"),
        (["canary", "a", "3", "5%", "--stop"], "leave out VERSION"),
        (["canary", "a", "zero", "5%"], "zero"),
        (["shadow", "a"], "`ship shadow a 4`, or --stop"),
        (["shadow", "a", "3", "--stop"], "--stop"),
        (["plan", "nowhere.yaml"], "nowhere.yaml"),
        (["show", "../a"], "task name '../a'"),
        (["serve", "--port", "99999"], "99999"),
        (["serve", "--engines", "auto:3-2"], "--engines: 'auto:3-2' is no number of replicas"),
        (["serve", "--replicas", "none"], "--replicas: 'none' is no number of replicas"),
        (["serve", "--ingress", "0"], "--ingress: '0' is no number of replicas"),
        (["serve", "--backbone", "bundled", "--backbone", "bundled"], "found 'bundled' twice"),
        (["serve", "--ingress", "inside", "--backbone", "a", "--backbone", "b"], "one --backbone, found 2"),
        (["import", "lora"], "--task"),
        (["import", "lora", "--task", "../a"], "task name '../a'"),
        (["import", "nowhere", "--task", "a"], "adapter_config.json: cannot be read"),
        (["export", "a", "lora"], "--format"),
        (["export", "a", "lines", "--format", "peft"], "expected no such folder, or an empty one"),
        (["export", "../a", "lora", "--format", "peft"], "task name '../a'"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_clear_error(
    plant: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
    assert not (plant / ".ship").exists()


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_help_with_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    printed = capsys.readouterr().out
    assert "Example" in printed
    assert f"ship {command}" in printed or "ship --store" in printed


@pytest.mark.parametrize("flags", [(), ("--json",), ("--tag", "site=ulm", "--only", "caps")])
def test_a_listing_of_a_mistyped_home_names_it_and_makes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "mistyped"
    assert run(monkeypatch, "--home", str(home), "ls", *flags) == 0
    printed = capsys.readouterr()
    assert f"there is no MLflow at sqlite:///{home}/mlflow.db" in printed.err
    assert printed.out.strip() == ("[]" if flags == ("--json",) else "")
    assert not home.exists()
