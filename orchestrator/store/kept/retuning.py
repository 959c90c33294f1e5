"""What a task is tuned anew from: its manifest, with the pictures whose label is settled."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import ManifestError
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.part import write_part
from orchestrator.manifest.request import Request
from orchestrator.manifest.selection import Selection
from orchestrator.private_files import replace_private
from orchestrator.store.kept.earlier_tables import EarlierTables, read_earlier
from orchestrator.store.kept.picture_files import Exported
from orchestrator.store.kept.reviewed_table import ReviewedTable, labels_of, merge_rows, write_table
from orchestrator.store.kept.reviews import Reviews
from ship.data.fingerprint import file_digests

__all__ = ["Retuning", "export_new", "prepare_retuning"]

MANIFEST = "retune.yaml"


@dataclass(frozen=True, kw_only=True)
class Retuning:
    """What `ship tune` takes.

    Attributes:
        manifest: Manifest of the one task.
        exported: The further pictures, with those that the manifest had before.
    """

    manifest: Path
    exported: Exported


def prepare_retuning(
    reviews: Reviews, task: str, manifest: str, folder: Path, *, store: str | None = None
) -> Retuning:
    """Write the pictures of a task, their table and a manifest of the task with them into a folder.

    The table is that of ``export_new``, so that the new manifest has all that the given one has. Where its
    labels are those of the given manifest's ``more``, nothing is written.

    Args:
        reviews: Kept pictures and their labels.
        task: Name of the task.
        manifest: File of the manifest that has the settings of the task.
        folder: Where they are written; it may be there.
        store: URL or path of the store that the version goes to; None for what the manifest says.

    Raises:
        ManifestError: The manifest does not have the task, no label is settled that its data lack, or an
            earlier table cannot be taken over.
        DataError: Its data, or a picture of an earlier table, cannot be read.
        StoreError: A picture or a review cannot be read.
        OSError: The folder cannot be written.
    """
    loaded = _load(manifest, task)
    earlier, table = _collect(reviews, task, loaded, folder)
    if not table.rows or labels_of(table.rows) == labels_of(earlier.more):
        raise ManifestError(
            f"task {task!r} has no picture with a settled label that its data lack; `ship review ls {task}` "
            "shows what is missing"
            + ("" if table.rows or not earlier.more else ", and nothing of `more` is to stay: take it out")
        )
    exported = write_table(reviews.kept, task, table, folder)
    if store is not None:
        # The part lies elsewhere than where the path was meant.
        loaded = replace(loaded, store=store if "://" in store else os.path.abspath(store))
    part = folder / MANIFEST
    replace_private(part, write_part(loaded, manifest, str(exported.path.resolve())))
    return Retuning(manifest=part, exported=exported)


def export_new(reviews: Reviews, task: str, manifest: str | None, folder: Path) -> Exported:
    """Write the pictures of a task that its data lack, and their table; all of them without a manifest.

    The table has the rows of the manifest's ``more``, and of the table that it replaces, too; see
    ``reviewed_table`` for what holds of it.

    Raises:
        ManifestError: The manifest does not have the task, or an earlier table cannot be taken over.
        DataError: Its data, or a picture of an earlier table, cannot be read.
        StoreError: A picture or a review cannot be read.
        OSError: The folder cannot be written.
    """
    _, table = _collect(reviews, task, None if manifest is None else _load(manifest, task), folder)
    return write_table(reviews.kept, task, table, folder)


def _load(manifest: str, task: str) -> Manifest:
    return Request(selection=Selection.from_flags((task,), ())).load(manifest)


def _collect(
    reviews: Reviews, task: str, manifest: Manifest | None, folder: Path
) -> tuple[EarlierTables, ReviewedTable]:
    """The rows of earlier tables, and those of the new one."""
    source = None if manifest is None else manifest.tasks[0].source
    earlier = read_earlier(task, source, folder)
    rows = (*earlier.more, *earlier.replaced)
    known = frozenset[str]() if source is None else file_digests(source)
    existing = reviews.existing(task, {row.picture for row in rows})
    return earlier, merge_rows(reviews.pictures(task), rows, existing, known)
