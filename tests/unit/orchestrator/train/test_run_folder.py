"""Status and requests between a run and other terminals, with a driver that is stepped by the test."""

import fcntl
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.cli.main import cli
from orchestrator.cli.tables import event_line
from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.run_folder import RunRequest, RunView, hold_run, list_runs
from tests.unit.orchestrator.train.fakes import Clock, Spec, epoch


def make_ledger(*names: str) -> Ledger:
    ledger = Ledger([Spec(name) for name in names], LedgerPolicy(), Clock())
    ledger.join("worker-0@host:1", 0, 1)
    ledger.lease("worker-0@host:1")
    return ledger


def event(kind: str, task: str = "caps", **data: object) -> Event:
    return Event(kind=kind, task=task, key="0" * 64, attempt=1, time_s=0.0, data=data)


def test_another_terminal_sees_all_that_the_run_knows(tmp_path: Path) -> None:
    ledger = make_ledger("caps", "welds")
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        view = RunView(tmp_path)
        assert view.is_at_work
        assert view.status() is None
        folder.show(ledger.status())
        found = view.status()
        assert found is not None
        assert found[0] == ledger.status()
        ledger.complete("worker-0@host:1", "caps", 1, {})
        folder.show(ledger.status())
        assert view.status()[0].counts()["done"] == 0, "not renewed more than once a second"
        assert view.about().manifest == "lines.yaml"
    assert not view.is_at_work
    assert view.status()[0].counts()["done"] == 1, "the last state stays"


def test_one_run_a_home(tmp_path: Path) -> None:
    with (
        hold_run(tmp_path, "tune-1", "lines.yaml"),
        pytest.raises(ExecutionError, match=r"another `ship tune` runs in .*lines.yaml, process \d+"),
        hold_run(tmp_path, "tune-2", "lines.yaml"),
    ):
        pass
    with hold_run(tmp_path, "tune-3", "other.yaml"):
        assert RunView(tmp_path).about().run == "tune-3"


def test_the_last_runs_are_kept_each_with_its_own_status(tmp_path: Path) -> None:
    for number in range(1, 6):
        with hold_run(tmp_path, f"tune-{number}", "lines.yaml", keep=3) as folder:
            folder.show(make_ledger(f"task-{number}").status())
            folder.log([event("cancelled", task=f"task-{number}")])
        (tmp_path / "logs" / f"tune-{number}").mkdir(parents=True)
    assert [about.run for about in list_runs(tmp_path)] == ["tune-5", "tune-4", "tune-3"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "lock",
        "tune-3",
        "tune-4",
        "tune-5",
    ]
    # Those of tune-2 go with the next run.
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["tune-3", "tune-4", "tune-5"]
    view = RunView(tmp_path, "tune-4")
    assert [status.task for status in view.status()[0].tasks] == ["task-4"]
    assert [found.task for found in view.events()] == ["task-4"]
    assert RunView(tmp_path).about().run == "tune-5"
    with pytest.raises(ExecutionError, match=r"no run 'tune-2' in .*did you mean tune-"):
        RunView(tmp_path, "tune-2")
    for outside in ("../runs/tune-5", "..", ""):
        with pytest.raises(ExecutionError, match="no run"):
            RunView(tmp_path, outside)


def test_the_run_at_work_comes_first_whatever_its_clock_says(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        place = folder.folder / "about.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"run": "tune-late", "started_s": 9e12}))
        place.parent.rename(tmp_path / "runs" / "tune-late")
    with hold_run(tmp_path, "tune-2", "lines.yaml"):
        assert [about.run for about in list_runs(tmp_path)] == ["tune-2", "tune-late"]
        assert RunView(tmp_path).is_at_work
        assert not RunView(tmp_path, "tune-late").is_at_work
    assert RunView(tmp_path).about().run == "tune-late"


def test_the_run_of_an_earlier_version_is_read_and_excludes_another(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-old", "lines.yaml") as folder:
        folder.show(make_ledger("caps").status())
    folder.folder.rename(tmp_path / "run")
    (tmp_path / "runs" / "lock").unlink()
    (tmp_path / "runs").rmdir()
    assert [status.task for status in RunView(tmp_path).status()[0].tasks] == ["caps"]
    with (tmp_path / "run" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert RunView(tmp_path).is_at_work
        with (
            pytest.raises(ExecutionError, match="another `ship tune` runs in"),
            hold_run(tmp_path, "tune-new", "lines.yaml"),
        ):
            pass
    with hold_run(tmp_path, "tune-new", "lines.yaml"):
        assert [about.run for about in list_runs(tmp_path)] == ["tune-new", "tune-old"]


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
        folder.show(make_ledger("caps", "welds").status())
        folder.log([event("cancelled", task="welds")])
    with hold_run(tmp_path, "tune-2", "other.yaml") as folder:
        folder.show(make_ledger("bolts").status())
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


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib, signal\n"
        "from orchestrator.train.run_folder import hold_run\n"
        "with hold_run(pathlib.Path(sys.argv[1]), 'tune-1', 'lines.yaml'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert RunView(tmp_path).about().run == "tune-1"
    assert not RunView(tmp_path).is_at_work
    with hold_run(tmp_path, "tune-2", "lines.yaml"):
        pass


def test_the_log_has_every_event_but_few_epochs(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.log([event("leased", worker="w")])
        folder.log([event("epoch", **epoch(number, of=95)) for number in range(1, 96)])
        folder.log([event("failed", cause="broken", detail="Traceback"), event("cancelled", task="welds")])
    kinds = [found.kind for found in RunView(tmp_path).events("caps")]
    assert kinds == ["leased", *["epoch"] * 11, "failed"]
    assert [found.kind for found in RunView(tmp_path).events()][-1] == "cancelled"


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_lines_and_not_the_run(tmp_path: Path) -> None:
    ledger = make_ledger("caps")
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        (folder.folder / "requests" / "1.ask").write_text(json.dumps({"kind": "cancel", "tasks": ["caps"]}))
        with full_disk():
            folder.show(ledger.status())
            folder.log([event("leased", worker="w")])
            [(request, answer)] = folder.requests()
            answer(["caps"])
            assert RunView(tmp_path).status() is None
    assert request == RunRequest(kind="cancel", tasks=("caps",))
    found = RunView(tmp_path).status()
    assert found is not None
    [task] = found[0].tasks
    assert (task.worker, task.attempt) == ("worker-0@host:1", 1), "the status is written once there is room"
    with (
        full_disk(),
        pytest.raises(ExecutionError, match=r"cannot be written to .*File too large"),
        hold_run(tmp_path, "tune-2", "lines.yaml"),
    ):
        pass


def test_a_request_is_answered_once_and_rubbish_is_dropped(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        (folder.folder / "requests" / "1.ask").write_text("{")
        (folder.folder / "requests" / "2.ask").write_text(json.dumps({"kind": "format", "tasks": []}))
        got: list[RunRequest] = []

        def drive() -> None:
            while not got:
                for request, answer in folder.requests():
                    got.append(request)
                    answer(["caps"])

        driver = threading.Thread(target=drive)
        driver.start()
        changed = RunView(tmp_path).ask(RunRequest(kind="cancel", tasks=("caps", "welds")))
        driver.join()
        assert changed == ("caps",)
        assert got == [RunRequest(kind="cancel", tasks=("caps", "welds"))]
        assert list((folder.folder / "requests").iterdir()) == []


def test_no_control_answers_where_no_run_is_at_work(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="no run in"):
        RunView(tmp_path).about()
    with pytest.raises(ExecutionError, match="no `ship tune` runs in"):
        RunView(tmp_path).ask(RunRequest(kind="stop"))
    with hold_run(tmp_path, "tune-1", "lines.yaml"), pytest.raises(ExecutionError, match="did not answer"):
        RunView(tmp_path).ask(RunRequest(kind="stop"), patience_s=0.2)


def test_commands_say_how_a_run_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        ledger = make_ledger("caps", "welds")
        ledger.cancel(["welds"])
        folder.log(
            [event("failed", cause="a.png is corrupt", detail="Traceback\n  line 1"), event("cancelled")]
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
        folder.show(make_ledger("caps", "welds").status())
        cli(["--home", str(tmp_path), "status"], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[1:] == ["caps: tunes on worker-0", "welds: waits"]


def test_training_accuracy_of_an_older_run_is_not_taken_for_held_out_accuracy(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(make_ledger("caps").status())
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
        folder.log([event("search", **step, epoch=at, is_new_round=at == 0) for at in range(9)])
    [found] = RunView(tmp_path).events()
    assert found.data["epoch"] == 0
    assert event_line(found).endswith("searches settings, round 1/3, 8 candidates left")


def test_a_mistyped_task_is_corrected(tmp_path: Path) -> None:
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(make_ledger("bottle-caps").status())
    with pytest.raises(ExecutionError, match="no such task in the run: botle-caps; did you mean bottle-caps"):
        cli(["--home", str(tmp_path), "logs", "botle-caps"], standalone_mode=False)


def test_a_retry_that_takes_nothing_up_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = make_ledger("caps", "welds", "bolts", "nuts")
    assert ledger.complete("worker-0@host:1", "bolts", 1, {})
    ledger.lease("worker-0@host:1")
    ledger.cancel(["nuts"])
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(ledger.status())
        is_over = threading.Event()

        def drive() -> None:
            while not is_over.wait(0.01):
                for request, answer in folder.requests():
                    answer(ledger.retry(request.tasks))

        driver = threading.Thread(target=drive)
        driver.start()
        try:
            with pytest.raises(SystemExit) as ended:
                cli(
                    ["--home", str(tmp_path), "retry", "bolts", "caps", "welds", "nuts", "--json"],
                    standalone_mode=False,
                )
        finally:
            is_over.set()
            driver.join()
    assert ended.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["taken_up"] == ["nuts"]
    assert [(task, reason.split(";")[0]) for task, reason in said["refused"].items()] == [
        ("bolts", "it is published"),
        ("caps", "a worker is tuning it now"),
        ("welds", "it waits for a worker already"),
    ]
