"""Runs as other terminals see them: listings, status, log and requests, by class and by command."""

import json
from pathlib import Path

import pytest

from orchestrator.cli.main import cli
from orchestrator.cli.tables import event_line
from orchestrator.errors import ExecutionError
from orchestrator.train.run.files import RunRequest
from orchestrator.train.run.folder import hold_run
from orchestrator.train.run.view import RunView, list_runs
from ship.redaction import Url
from tests.unit.orchestrator.train.fakes import driven, leased_ledger, make_event


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": "a"}', '{"run": "a", "manifest": "b"}'])
def test_a_folder_that_is_no_run_is_passed_over(tmp_path: Path, content: str) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml"):
        pass
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "about.json").write_text(content)
    assert [about.run for about in list_runs(tmp_path)] == ["tune-1"]
    with hold_run(tmp_path, "tune-2", "lines.yaml", keep=1):
        assert [about.run for about in list_runs(tmp_path)] == ["tune-2"]
    assert (tmp_path / "runs" / "torn").is_dir(), "what is not ours stays"


def test_runs_are_listed_and_asked_for_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    cli([*home, "runs"], standalone_mode=False)
    assert "No run in" in capsys.readouterr().out
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(leased_ledger("caps", "welds").status())
        folder.log([make_event("cancelled", task="welds")])
    with hold_run(tmp_path, "tune-2", "other.yaml") as folder:
        folder.show(leased_ledger("bolts").status())
        cli([*home, "runs", "--json"], standalone_mode=False)
        said = json.loads(capsys.readouterr().out)
        assert [(run["run"], run["is_at_work"], run["counts"]) for run in said] == [
            ("tune-2", True, {"leased": 1}),
            ("tune-1", False, {"pending": 2}),
        ]
        cli([*home, "runs"], standalone_mode=False)
        printed = capsys.readouterr().out
        assert "1 at work" in printed
        assert "2 unfinished" in printed
    cli([*home, "status", "--run", "tune-1"], standalone_mode=False)
    assert "caps: unfinished" in capsys.readouterr().out
    cli([*home, "logs", "welds", "--run", "tune-1"], standalone_mode=False)
    assert capsys.readouterr().out.endswith("cancelled\n")
    with pytest.raises(ExecutionError, match="no such task in the run: welds"):
        cli([*home, "logs", "welds"], standalone_mode=False)


def test_no_control_answers_where_no_run_is_at_work(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="no run in"):
        RunView(tmp_path).about()
    with pytest.raises(ExecutionError, match="no `ship tune` runs in"):
        RunView(tmp_path).ask(RunRequest(kind="stop"))
    with hold_run(tmp_path, "tune-1", "lines.yaml"), pytest.raises(ExecutionError, match="did not answer"):
        RunView(tmp_path).ask(RunRequest(kind="stop"), patience_s=0.2)


def test_commands_say_how_a_run_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        ledger = leased_ledger("caps", "welds")
        ledger.cancel(["welds"])
        folder.log(
            [
                make_event("failed", cause="a.png is corrupt", detail="Traceback\n  line 1"),
                make_event("cancelled"),
            ]
        )
        folder.show(ledger.status())
    home = ["--home", str(tmp_path)]
    cli([*home, "status"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "tune-1, lines.yaml: over" in printed
    assert "caps: unfinished" in printed
    assert "welds: cancelled" in printed
    cli([*home, "status", "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert (said["is_at_work"], said["counts"]) == (False, {"pending": 1, "cancelled": 1})
    cli([*home, "logs", "caps"], standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [
        "1970-01-01T00:00:00Z  caps  attempt 1  failed: a.png is corrupt",
        "    Traceback",
        "      line 1",
        "1970-01-01T00:00:00Z  caps  attempt 1  cancelled",
    ]
    for arguments in (["cancel", "screws"], ["retry", "screws"], ["logs", "screws"]):
        with pytest.raises(ExecutionError, match="no such task in the run: screws"):
            cli([*home, *arguments], standalone_mode=False)


def test_status_in_a_pipe_lists_tasks_that_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(leased_ledger("caps", "welds").status())
        cli(["--home", str(tmp_path), "status"], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[1:] == ["caps: tunes on worker-0", "welds: waits"]


def test_training_accuracy_of_an_older_run_is_not_taken_for_held_out_accuracy(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(leased_ledger("caps").status())
    place = folder.folder / "status.json"
    said = json.loads(place.read_text())
    new = {"search", "train_accuracy", "accuracy_low", "accuracy_high", "probe_accuracy"}
    [task] = said["tasks"]
    said["tasks"] = [{name: value for name, value in task.items() if name not in new} | {"accuracy": 1.0}]
    place.write_text(json.dumps(said))
    found = RunView(tmp_path).status()
    assert found is not None
    assert found[0].tasks[0].accuracy is None


def test_the_log_has_a_line_for_each_round_of_a_search(tmp_path: Path) -> None:
    step = {"round": 1, "num_rounds": 3, "num_candidates": 8, "num_epochs": 100}
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.log([make_event("search", **step, epoch=at, is_new_round=at == 0) for at in range(9)])
    [found] = RunView(tmp_path).events()
    assert found.data["epoch"] == 0
    assert event_line(found).endswith("searches settings, round 1/3, 8 candidates left")


def test_a_mistyped_task_is_corrected(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(leased_ledger("bottle-caps").status())
    with pytest.raises(ExecutionError, match="no such task in the run: botle-caps; did you mean bottle-caps"):
        cli(["--home", str(tmp_path), "logs", "botle-caps"], standalone_mode=False)


def test_a_retry_that_takes_nothing_up_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = leased_ledger("caps", "welds", "bolts", "nuts")
    assert ledger.complete("worker-0@host:1", "bolts", 1, {})
    ledger.lease("worker-0@host:1")
    ledger.cancel(["nuts"])
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(ledger.status())
        with driven(folder, ledger), pytest.raises(SystemExit) as ended:
            cli(
                ["--home", str(tmp_path), "retry", "bolts", "caps", "welds", "nuts", "--json"],
                standalone_mode=False,
            )
    assert ended.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["taken_up"] == ["nuts"]
    assert [(task, reason.split(";")[0]) for task, reason in said["refused"].items()] == [
        ("bolts", "it is published"),
        ("caps", "a worker is tuning it now"),
        ("welds", "it waits for a worker already"),
    ]


def test_a_page_has_the_last_events_of_a_long_log(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        assert RunView(tmp_path).last_events(3) == []
        folder.log([make_event("failed", cause="x" * 1000, detail=str(number)) for number in range(1500)])
        with (folder.folder / "events.jsonl").open("a") as log:
            log.write('{"kind": "cancel')
    view = RunView(tmp_path)
    assert [event.data["detail"] for event in view.last_events(3)] == ["1497", "1498", "1499"]
    long = view.last_events(5000)
    assert 500 < len(long) < 1500, "a megabyte of the log"
    assert long[-1].data["detail"] == "1499"


def test_documents_of_a_run_are_there_or_none(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        view = RunView(tmp_path)
        assert (view.plan(), view.report(), view.page()) == (None, None, None)
        folder.plan({"to_tune": [], "warnings": [Url("s3://me:secret@plant/ship")]})
        (folder.folder / "report.json").write_text("[1]")
        (folder.folder / "report.html").write_text("<p>")
    assert view.plan() == {"to_tune": [], "warnings": ["s3://plant/ship"]}
    assert (view.report(), view.page()) == (None, b"<p>")
