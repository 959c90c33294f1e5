"""What a task is tuned anew from: its manifest, with the pictures whose label is settled."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import ManifestError
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.part import write_part
from orchestrator.manifest.request import Request
from orchestrator.manifest.selection import Selection
from orchestrator.names import check_task_name
from orchestrator.private_files import replace_private
from orchestrator.store.kept.review_files import Exported, export_csv
from orchestrator.store.kept.reviews import Reviews

__all__ = ["Retuning", "export_new", "prepare_retuning", "review_folder"]

MANIFEST = "retune.yaml"


@dataclass(frozen=True, kw_only=True)
class Retuning:
    """What `ship tune` takes.

    Attributes:
        manifest: Manifest of the one task.
        exported: The further pictures.
    """

    manifest: Path
    exported: Exported


def review_folder(home: Path, task: str) -> Path:
    """Where pictures of a task are written, unless another folder is named."""
    return home / "review" / check_task_name(task)


def prepare_retuning(
    reviews: Reviews, task: str, manifest: str, folder: Path, *, store: str | None = None
) -> Retuning:
    """Write the pictures of a task, their table and a manifest of the task with them into a folder.

    Args:
        reviews: Kept pictures and their labels.
        task: Name of the task.
        manifest: File of the manifest that has the settings of the task.
        folder: Where they are written; it may be there.
        store: URL or path of the store that the version goes to; None for what the manifest says.

    Raises:
        ManifestError: The manifest does not have the task, or no label is settled that its data lack.
        StoreError: A picture cannot be read.
    """
    loaded = _load(manifest, task)
    exported = _export(reviews, task, loaded, folder)
    if not exported.num_pictures:
        raise ManifestError(
            f"task {task!r} has no picture with a settled label that its data lack; `ship review ls {task}` "
            "shows what is missing"
        )
    if store is not None:
        # The part lies elsewhere than where the path was meant.
        loaded = replace(loaded, store=store if "://" in store else os.path.abspath(store))
    part = folder / MANIFEST
    replace_private(part, write_part(loaded, manifest, str(exported.path.resolve())))
    return Retuning(manifest=part, exported=exported)


def export_new(reviews: Reviews, task: str, manifest: str | None, folder: Path) -> Exported:
    """Write the pictures of a task that its data lack, and their table; all of them without a manifest.

    Raises:
        ManifestError: The manifest does not have the task.
        StoreError: A picture cannot be read.
    """
    return _export(reviews, task, None if manifest is None else _load(manifest, task), folder)


def _load(manifest: str, task: str) -> Manifest:
    return Request(selection=Selection.from_flags((task,), ())).load(manifest)


def _export(reviews: Reviews, task: str, manifest: Manifest | None, folder: Path) -> Exported:
    # Reads the files of the data, and loads what that takes.
    from ship.data.fingerprint import file_digests

    known = frozenset[str]() if manifest is None else file_digests(manifest.tasks[0].source)
    return export_csv(reviews.kept, reviews.pictures(task), folder, known)
