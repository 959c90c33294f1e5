"""The tables that a new table of reviewed pictures takes over: the manifest's, and the one in its place."""

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ManifestError
from orchestrator.store.kept.reviewed_table import BY, CSV, TASK, Row
from ship.data import DataSource
from ship.data.folder import open_parent
from ship.data.more_table import read_more
from ship.errors import DataError

__all__ = ["EarlierTables", "read_earlier"]


@dataclass(frozen=True, kw_only=True)
class EarlierTables:
    """Rows of earlier tables.

    Attributes:
        more: Those of the manifest's ``more``.
        replaced: Those of the table that is in the folder, unless it is the same.
    """

    more: tuple[Row, ...] = ()
    replaced: tuple[Row, ...] = ()


def read_earlier(task: str, source: DataSource | None, folder: Path) -> EarlierTables:
    """The rows that a new table of a task takes over.

    Args:
        task: Name of the task.
        source: Data of the task in the manifest, if there is one.
        folder: Where the new table is to be written.

    Raises:
        ManifestError: A table cannot be read, so that its labels would be lost; or the one in the folder is
            the task's data, of another task, or none that was exported.
        DataError: No backend for a URL.
    """
    table = folder / CSV
    if source is not None and _is_at(source.path, table):
        raise ManifestError(f"{table}: it is the data of task {task!r} themselves; name another folder")
    group = None if source is None else source.group
    more: tuple[Row, ...] = ()
    is_replaced = table.exists()
    if source is not None and source.more is not None:
        advice = "its pictures would be lost; mend it, or take `more` out of the manifest"
        more = _read(source.more, group, f"task {task!r}: more: ", advice)
        is_replaced = is_replaced and not _is_at(source.more, table)
    return EarlierTables(more=more, replaced=_read_replaced(task, table, group) if is_replaced else ())


def _read_replaced(task: str, table: Path, group: str | None) -> tuple[Row, ...]:
    rows = _read(str(table), group, "", "its labels would be lost; mend it, or move it elsewhere")
    if any(BY not in row.columns for row in rows):
        raise ManifestError(
            f"{table}: it has no column {BY!r}, so that `ship review` did not write it, and it would be "
            "replaced; name another folder, or take it as `more` into the manifest"
        )
    if others := sorted({row.columns.get(TASK) or task for row in rows} - {task}):
        raise ManifestError(
            f"{table}: it has pictures of task {others[0]!r}, and would be replaced by those of task "
            f"{task!r}; name another folder"
        )
    return rows


def _read(path: str, group: str | None, place: str, advice: str) -> tuple[Row, ...]:
    try:
        found = read_more(path, group)
    except DataError as error:
        raise ManifestError([f"{place}{problem}; {advice}" for problem in error.problems]) from None
    return tuple(Row(picture=one.digest, label=one.label, columns=one.columns, image=one) for one in found)


def _is_at(path: str, table: Path) -> bool:
    """Whether a path or URL is that of a local file."""
    parent, name = open_parent(path)
    return parent.is_local and os.path.realpath(parent.locate(name)) == os.path.realpath(table)
