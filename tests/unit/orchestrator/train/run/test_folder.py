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

from orchestrator.errors import ExecutionError
from orchestrator.train.run.files import RunRequest
from orchestrator.train.run.folder import hold_run
from orchestrator.train.run.view import RunView, list_runs
from tests.unit.orchestrator.train.fakes import epoch, leased_ledger, make_event


def test_another_terminal_sees_all_that_the_run_knows(tmp_path: Path) -> None:
    ledger = leased_ledger("caps", "welds")
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
            folder.show(leased_ledger(f"task-{number}").status())
            folder.log([make_event("cancelled", task=f"task-{number}")])
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
        folder.show(leased_ledger("caps").status())
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


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib, signal\n"
        "from orchestrator.train.run.folder import hold_run\n"
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
        folder.log([make_event("leased", worker="w")])
        folder.log([make_event("epoch", **epoch(number, of=95)) for number in range(1, 96)])
        folder.log(
            [make_event("failed", cause="broken", detail="Traceback"), make_event("cancelled", task="welds")]
        )
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
    ledger = leased_ledger("caps")
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        (folder.folder / "requests" / "1.ask").write_text(json.dumps({"kind": "cancel", "tasks": ["caps"]}))
        with full_disk():
            folder.show(ledger.status())
            folder.log([make_event("leased", worker="w")])
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
