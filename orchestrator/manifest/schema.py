"""Schema of a manifest: its keys and the types of their values, with messages of our own.

Names, paths and settings are checked further in ``orchestrator.manifest.load``.
"""

import posixpath
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.manifest.problems import describe_unknown_key, describe_value
from orchestrator.manifest.yaml_document import Place
from orchestrator.settings import Executor
from ship.settings.presets import Preset

__all__ = [
    "MANIFEST_KEYS",
    "BackboneModel",
    "FolderModel",
    "ManifestModel",
    "TaskModel",
    "find_folder_problems",
    "find_schema_problems",
    "find_tag_problem",
    "read_backbone",
]

_EXPECTED = {
    "string_type": "text",
    "string_too_short": "text",
    "int_type": "a whole number",
    "dict_type": "a mapping",
    "list_type": "a list",
    "bool_type": "true or false",
    "model_type": "a mapping",
}
# Keys of tags that MLflow accepts.
_TAG_KEY = re.compile(r"[\w .:/-]{1,250}")
_MAX_TAG_CHARS = 1000
_RESERVED_TAGS = ("mlflow.", "ship.")
_BACKBONE = "bundled, a timm name, a folder, or NAME:FILE.safetensors"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _CommonModel(_Model):
    tags: dict[str, Any] = Field({}, description="For people and --tag: site, line, family")
    view: dict[str, Any] = Field({}, description="Part of the pictures that is looked at, and their tiles")
    gate: dict[str, Any] = Field({}, description="The least that a version has to reach to serve")
    thumbnails: bool | None = Field(None, description="Whether small pictures of mistakes are kept; true")
    config: dict[str, Any] = Field({}, description="Settings, over those of defaults")
    preset: Preset | None = Field(None, description="Chooses settings by the size of the data")
    search: Any = Field(None, description="Values to choose among by setting; false searches nothing")
    priority: Any = Field(None, description="Higher goes first; 0 where none is given")
    deadline: Any = Field(None, description="When it is to be published: ISO 8601 with a zone")
    budget: Any = Field(None, description="Device time that it may take by the plan's estimate: 30m, 2h")
    approvals: Any = Field(None, description="1: a promotion waits for a second person, see ship approve")


class BackboneModel(_Model):
    """A backbone and the size of its input."""

    name: str = Field("bundled", min_length=1, description=_BACKBONE)
    image_size: int | None = Field(None, ge=1, description="Height and width in pixels; its own if left out")


class TaskModel(_CommonModel):
    """One task."""

    name: str = Field(description="a-z 0-9 . _ -, at most 63 characters")
    data: Any = Field(description="A folder, file or URL, or a mapping with a path and how to split it")


class FolderModel(_CommonModel):
    """Folders of tasks, and the values of all their tasks."""

    path: str = Field(min_length=1, description="A glob of folders, or a folder of them; a path or any URL")


class ManifestModel(_Model):
    """Tasks to tune on one backbone."""

    version: Literal[1] = Field(1, description="Of this form")
    backbone: Any = Field("bundled", description=f"{_BACKBONE}; or a mapping of that name and an image size")
    store: str | None = Field(None, min_length=1, description="Of prompts: a path, s3://... or any URL")
    workers: int | None = Field(None, ge=1, description="Processes that tune at once, at most")
    min_workers: int | None = Field(None, ge=1, description="Wait until there is room for so many")
    pack: int | None = Field(None, ge=1, description="Tasks that a worker tunes side by side, at most")
    executor: Executor | None = Field(None, description="What carries the workers: Ray Train or plain actors")
    max_tasks: int | None = Field(None, ge=1, description="ship tune refuses to tune more than that at once")
    defaults: dict[str, Any] = Field({}, description="Settings, tags and terms of every task")
    preset: Preset | None = Field(None, description="Of every task that names none")
    search: Any = Field(None, description="Of every task that says nothing of it")
    checks: dict[str, Any] = Field({}, description="Limits of ship check")
    tasks: list[TaskModel] = Field([], description="The tasks, one by one")
    tasks_from: Any = Field(None, description="A glob of folders, a mapping with one, or a list of these")


MANIFEST_KEYS = tuple(ManifestModel.model_fields)


def find_schema_problems(value: dict[str, Any]) -> list[tuple[Place, str]]:
    """Problems of a manifest's keys and types, with their places."""
    return _find_problems(ManifestModel, value)


def find_folder_problems(value: object) -> list[tuple[Place, str]]:
    """Problems of one mapping under ``tasks_from``, with places relative to it."""
    return _find_problems(FolderModel, value)


def read_backbone(value: object) -> tuple[str, int | None, list[tuple[Place, str]]]:
    """Name and image size of a manifest's backbone, and its problems with places relative to it."""
    if not isinstance(value, dict):
        wrong = _find_problems(BackboneModel, {"name": value})
        return str(value), None, [((), problem) for _, problem in wrong]
    return str(value.get("name", "bundled")), value.get("image_size"), _find_problems(BackboneModel, value)


def _find_problems(model: type[BaseModel], value: object) -> list[tuple[Place, str]]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        return [(detail["loc"], _message(detail, model)) for detail in error.errors()]
    return []


def find_tag_problem(key: str, value: object) -> str | None:
    """The problem of a tag, if any."""
    if not _TAG_KEY.fullmatch(key) or key.lower().startswith(_RESERVED_TAGS):
        return (
            "expected a tag name of 1 to 250 letters, digits, spaces and _ - . : /, "
            f"which does not start with {' or '.join(_RESERVED_TAGS)}"
        )
    # MLflow refuses what is no plain relative path.
    if key.startswith(("/", "..")) or posixpath.normpath(key) != key or key == ".":
        return f"expected a tag name that is no path such as /a, a/, ../a or a//b, got {key!r}"
    if not isinstance(value, (str, int, float)) or len(str(value)) > _MAX_TAG_CHARS:
        return f"expected text of at most {_MAX_TAG_CHARS} characters, got {describe_value(value)}"
    return None


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, got = detail["type"], describe_value(detail["input"])
    if kind == "extra_forbidden":
        owner = TaskModel if detail["loc"][0] == "tasks" else model
        return describe_unknown_key(str(detail["loc"][-1]), owner.model_fields)
    if kind == "missing":
        return "missing"
    if kind in _EXPECTED:
        hint = "; put it in quotes" if kind == "string_type" and not isinstance(detail["input"], list) else ""
        return f"expected {_EXPECTED[kind]}, got {got}{hint}"
    if kind == "greater_than_equal":
        return f"expected {detail['ctx']['ge']} or more, got {got}"
    if kind == "literal_error":
        return f"expected {detail['ctx']['expected']}, got {got}"
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {got}"
