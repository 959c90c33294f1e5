"""A copy of a registry, and its restoration.

Of an embedded MLflow it is its SQLite file, by SQLite's own backup while others write: everything stays as it
was, with all ids and times. Of a server, or another database, it is read and written by MLflow's own API, as
JSON: models with tags and aliases, versions with their numbers, and runs with parameters, tags and curves.
Ids of runs and times of making are MLflow's to give, and are others after that; files of runs are in neither.
"""

import itertools
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from orchestrator.errors import RegistryError
from orchestrator.private_files import make_private_folder, replace_private
from orchestrator.registry.copied_values import read_values, write_values
from orchestrator.registry.ownership import find_owner
from orchestrator.registry.registry import Registry
from orchestrator.registry.session import RegistryMissing
from orchestrator.store.prompt_store import PromptStore

__all__ = ["RegistryCopy", "copy_registry", "restore_registry"]

_PREFIX = "sqlite:///"
# What SQLite keeps beside a file, and takes for a part of whatever file has that name.
_LOGS = ("-journal", "-wal", "-shm")


@dataclass(frozen=True, kw_only=True)
class RegistryCopy:
    """The copy of a registry.

    Attributes:
        form: ``sqlite``, a file of SQLite, or ``json``, what MLflow's API gave.
        content: Its bytes.
    """

    form: Literal["sqlite", "json"]
    content: bytes


def copy_registry(registry: Registry, store: PromptStore) -> RegistryCopy | None:
    """Copy the registry of a store; None if nothing was recorded yet.

    Raises:
        ForeignRegistryError: The store belongs to another one.
        RegistryMissing: There is none, and the store has tasks.
        RegistryDown: MLflow cannot be reached.
    """
    try:
        find_owner(store, registry)
    except RegistryMissing:
        if store.read_owner() is not None or store.published_keys():
            raise
        return None
    if (file := _file_of(registry)) is not None:
        return RegistryCopy(form="sqlite", content=_copy_file(file))
    return RegistryCopy(form="json", content=read_values(registry.session))


def restore_registry(registry: Registry, copy: RegistryCopy, *, force: bool = False) -> None:
    """Restore a registry where there is none; one that is the same already, or a part of it, is no other.

    Args:
        registry: The registry to restore to, which may be made.
        copy: The copy.
        force: Whether a file that is there is put aside, with the logs beside it.

    Raises:
        RegistryError: There is another registry, or it is of a kind that takes no such copy.
        RegistryDown: MLflow cannot be reached.
    """
    if copy.form == "json":
        write_values(registry.session, copy.content)
        return
    file = _file_of(registry)
    if file is None:
        raise RegistryError(
            f"MLFLOW_TRACKING_URI={registry.session.where}: the backup holds a file of SQLite, expected "
            f"{_PREFIX}/FOLDER/mlflow.db: unset it to restore below SHIP_HOME, or leave the registry out "
            "with --store-only"
        )
    try:
        if file.exists():
            if file.read_bytes() == copy.content and not any(map(_is_filled, _logs_of(file))):
                return
            if not force:
                raise RegistryError(
                    f"{file}: expected no registry, there is one: nothing of it was changed; set SHIP_HOME "
                    "or MLFLOW_TRACKING_URI to another place, or put it aside with --force"
                )
        _put_aside(file)
        make_private_folder(file.parent)
        replace_private(file, copy.content)
    except OSError as error:
        raise RegistryError(f"{file}: cannot be restored: {error.strerror or error}") from error


def _put_aside(file: Path) -> None:
    """Rename a file of SQLite with its logs, or logs alone, to a free name: they stay one database."""
    names = (f"{file.name}.before-restore{ending}" for ending in _endings())
    places = ([place, *_logs_of(place)] for place in map(file.with_name, names))
    free = next(paths for paths in places if not any(path.exists() for path in paths))
    for path, place in zip([file, *_logs_of(file)], free, strict=True):
        if path.exists():
            path.rename(place)


def _endings() -> Iterator[str]:
    """The first is none."""
    yield ""
    yield from (f"-{number}" for number in itertools.count(2))


def _logs_of(file: Path) -> list[Path]:
    return [file.with_name(f"{file.name}{ending}") for ending in _LOGS]


def _is_filled(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _file_of(registry: Registry) -> Path | None:
    """SQLite's file of an embedded MLflow; None of any other."""
    uri = registry.session.tracking_uri
    path = uri.removeprefix(_PREFIX)
    return None if path == uri or "?" in path else Path(path)


def _copy_file(file: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="ship-backup-") as folder:
        copy = Path(folder) / "mlflow.db"
        try:
            with (
                closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
                # A copy in one file, which needs no log beside it.
                target.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            raise RegistryError(
                f"{file}: cannot be copied: {error}; see that it is a file of SQLite and sound"
            ) from error
        return copy.read_bytes()
