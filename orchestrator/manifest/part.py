"""A manifest of one task of another one, with further training images: what a task is tuned anew from."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import ManifestError
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.yaml_document import parse_yaml
from ship.data import DataSource

__all__ = ["write_part"]


def write_part(manifest: Manifest, path: str, more: str) -> bytes:
    """The content of a manifest that has one task, and the images of a table with its data.

    Args:
        manifest: The manifest as it was read, with one task; it gives the paths.
        path: Its file, which gives all settings.
        more: Absolute path of the table.

    Raises:
        ManifestError: The settings of the task cannot be told: it is in one of several ``tasks_from``.
    """
    [task] = manifest.tasks
    raw = dict(parse_yaml(Path(path).read_bytes()).value)
    own = _settings(raw, task.name)
    # As JSON has them: paths are plain text, with their secrets, as they are in the manifest.
    data = json.loads(json.dumps(replace(task.source, more=more).to_dict()))
    defaults = {one.name: one.default for one in fields(DataSource)}
    entry = {
        **own,
        "name": task.name,
        "data": {name: value for name, value in data.items() if value != defaults[name]},
    }
    # Paths of the manifest are relative to it, and the part lies elsewhere. Its data have every setting.
    raw["defaults"] = {name: one for name, one in (raw.get("defaults") or {}).items() if name != "data"}
    raw |= {"backbone": manifest.backbone, "tasks": [entry]}
    if manifest.store is not None:
        raw["store"] = manifest.store
    raw.pop("tasks_from", None)
    kept = {name: value for name, value in raw.items() if value not in ({}, None)}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode()


def _settings(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """The task's own settings, without name and data."""
    listed = [task for task in raw.get("tasks") or [] if task.get("name") == name]
    folders = raw.get("tasks_from") or []
    folders = folders if isinstance(folders, list) else [folders]
    if not listed and len(folders) != 1:
        raise ManifestError(
            f"task {name!r} comes from one of {len(folders)} entries of tasks_from; name it under tasks, so "
            "that its settings are known"
        )
    found = listed[0] if listed else folders[0]
    own = found if isinstance(found, dict) else {}
    return {key: value for key, value in own.items() if key not in ("name", "data", "path")}
