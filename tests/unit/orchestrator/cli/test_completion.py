"""Completion of names at a shell's prompt: what click hands to the shell, in this process."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from orchestrator.cli.main import cli
from orchestrator.registry.database_file import SCHEMA_REVISIONS
from orchestrator.serve.residency.kept_catalog import FOLDER, KeptCatalog
from orchestrator.store.documents.catalog import Catalog, CatalogEntry, IdleTask
from orchestrator.train.ledger.status import RunStatus, TaskStatus
from orchestrator.train.run.folder import hold_run


def complete(*words: str) -> list[str]:
    """Completions of the last word."""
    *before, incomplete = words
    found = ShellComplete(cli, {}, "ship", "_SHIP_COMPLETE").get_completions(before, incomplete)
    return [item.value for item in found]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SHIP_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir(mode=0o755)
    return tmp_path / "home"


def write_models(home: Path, *names: str) -> None:
    """A database with these registered models, as far as a listing reads it."""
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home / "mlflow.db")) as file:
        file.executescript(
            """
            CREATE TABLE alembic_version (version_num);
            CREATE TABLE registered_models (name, creation_time, last_updated_time, workspace);
            CREATE TABLE registered_model_tags (name, key, value, workspace);
            CREATE TABLE registered_model_aliases (name, alias, version, workspace);
            CREATE TABLE model_versions
                (name, version, source, run_id, creation_time, current_stage, workspace);
            CREATE TABLE model_version_tags (name, version, key, value, workspace);
            """
        )
        file.execute("INSERT INTO alembic_version VALUES (?)", sorted(SCHEMA_REVISIONS)[:1])
        rows = [(name, 1000, 2000, "default") for name in names]
        file.executemany("INSERT INTO registered_models VALUES (?, ?, ?, ?)", rows)
        file.commit()


OF_RUNS = ("logs", "cancel", "retry")
# Whatever is added later, too.
COMMANDS = sorted(
    name
    for name, command in cli.commands.items()
    if name not in OF_RUNS
    and any(one.name == "task" and one.param_type_name == "argument" for one in command.params)
)


def test_the_commands_on_a_task_are_found() -> None:
    assert {"show", "predict", "threshold", "mistakes", "approve", "audit"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_names_of_tasks_are_those_of_the_registry(home: Path, command: str) -> None:
    write_models(home, "ship.weld-1", "ship.weld-2", "ship.caps", "other", "ship.Not A Task")
    assert complete(command, "weld") == ["weld-1", "weld-2"]
    assert complete(command, "") == ["caps", "weld-1", "weld-2"]
    assert complete(command, "x") == []


def test_the_home_of_the_command_line_is_asked(home: Path, tmp_path: Path) -> None:
    write_models(home, "ship.caps")
    write_models(tmp_path / "other", "ship.bolts")
    assert complete("--home", str(tmp_path / "other"), "show", "") == ["bolts"]


def test_without_mlflows_file_the_last_catalog_on_this_machine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://192.0.2.1:5000")
    monkeypatch.setenv("SHIP_STORE", "s3://models/ship")
    assert complete("show", "") == []
    catalog = Catalog(
        entries={"bolts": CatalogEntry(version=1, digest="0" * 64)}, idle={"nuts": IdleTask(is_retired=True)}
    )
    KeptCatalog(tmp_path / "cache" / FOLDER, "s3://models/ship").keep(catalog)
    assert complete("show", "") == ["bolts", "nuts"]


def test_tasks_of_a_run_and_names_of_runs(home: Path) -> None:
    assert complete("logs", "") == complete("status", "--run", "") == []
    with hold_run(home, "tune-1", "lines.yaml") as folder:
        tasks = tuple(TaskStatus(task=name, key="0" * 64) for name in ("caps", "welds"))
        folder.show(
            RunStatus(tasks=tasks, workers={}, evicted=frozenset(), starts_in_vain=0, last_crash=None)
        )
    for command in OF_RUNS:
        assert complete(command, "c") == ["caps"]
    assert complete("retry", "caps", "w") == ["welds"]
    assert complete("status", "--run", "") == complete("logs", "--run", "tune") == ["tune-1"]


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_what_cannot_be_read_completes_nothing_and_is_no_error(
    home: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "mlflow.db").write_bytes(content)
    folder = Path(os.environ["SHIP_CACHE"]) / FOLDER
    folder.mkdir(parents=True)
    KeptCatalog(folder, str(home / "store")).keep(Catalog(entries={}))
    [kept] = folder.iterdir()
    kept.write_bytes(b"torn")
    (home / "runs" / "tune-1").mkdir(parents=True)
    (home / "runs" / "tune-1" / "about.json").write_bytes(b"torn")
    for words in (("show", ""), ("logs", ""), ("status", "--run", "")):
        assert complete(*words) == []
    assert capsys.readouterr() == ("", "")


def test_nothing_is_written_and_no_folder_is_closed(home: Path) -> None:
    write_models(home, "ship.caps")
    before = sorted(home.parent.rglob("*"))
    complete("show", "")
    complete("logs", "")
    complete("--home", str(home.parent / "mistyped"), "show", "")
    assert sorted(home.parent.rglob("*")) == before
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
