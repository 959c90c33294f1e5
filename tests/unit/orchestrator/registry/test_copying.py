"""SQLite's file of a registry is restored as it was copied, whatever the one before it left there."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.copying import RegistryCopy, restore_registry
from orchestrator.registry.registry import Registry

# A writer that is killed in a transaction, after it has written a part of it to the file.
_KILLED = """
import os, sqlite3, sys
file = sqlite3.connect(sys.argv[1])
file.executescript(f"PRAGMA journal_mode={sys.argv[2]}; DELETE FROM t WHERE id > 120; VACUUM")
file.execute("PRAGMA cache_size=5")
file.execute("UPDATE t SET v = 'bad' || v")
if sys.argv[2] == "wal":
    file.commit()
os._exit(9)
"""


def make_file(file: Path) -> RegistryCopy:
    """A file of SQLite with 200 rows, as a backup has it."""
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as opened:
        opened.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
        opened.executemany("INSERT INTO t(v) VALUES (?)", [("good" + "x" * 400,)] * 200)
        opened.commit()
    return RegistryCopy(form="sqlite", content=file.read_bytes())


def kill_writer(file: Path, mode: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(file), mode], check=False)
    assert done.returncode == 9


def rows(file: Path) -> tuple[int, str]:
    with closing(sqlite3.connect(file)) as opened:
        [(num, value)] = opened.execute("SELECT count(*), min(substr(v, 1, 4)) FROM t")
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return num, value


@pytest.mark.parametrize(("mode", "log", "before"), [("delete", "-journal", "good"), ("wal", "-wal", "badg")])
def test_a_log_that_a_killed_writer_left_goes_aside_with_its_file(
    tmp_path: Path, mode: str, log: str, before: str
) -> None:
    file = tmp_path / "home" / "mlflow.db"
    copy = make_file(file)
    registry = Registry(f"sqlite:///{file}", may_create=True)
    for place in ("mlflow.db.before-restore", "mlflow.db.before-restore-2"):
        kill_writer(file, mode)
        assert file.with_name(f"{file.name}{log}").exists()
        with pytest.raises(RegistryError, match="put it aside with --force"):
            restore_registry(registry, copy)
        restore_registry(registry, copy, force=True)
        restore_registry(registry, copy)
        assert file.read_bytes() == copy.content
        assert rows(file) == (200, "good")
        assert file.with_name(f"{place}{log}").exists()
        assert rows(file.with_name(place)) == (120, before), "it is whole, its log applied"
    assert rows(file.with_name("mlflow.db.before-restore")) == (120, before), "the first one stays"


def test_a_log_whose_file_is_gone_or_is_the_copy_is_not_applied(tmp_path: Path) -> None:
    file = tmp_path / "home" / "mlflow.db"
    copy = make_file(file)
    registry = Registry(f"sqlite:///{file}", may_create=True)
    kill_writer(file, "delete")
    file.unlink()
    restore_registry(registry, copy)
    assert rows(file) == (200, "good")
    assert [path.name for path in sorted(file.parent.iterdir())] == [
        *("mlflow.db", "mlflow.db.before-restore-journal")
    ]

    kill_writer(file, "delete")
    # As an earlier version left it.
    file.write_bytes(copy.content)
    with pytest.raises(RegistryError, match="put it aside with --force"):
        restore_registry(registry, copy)
    restore_registry(registry, copy, force=True)
    assert rows(file) == (200, "good")
