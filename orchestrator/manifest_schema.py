"""The shape of a manifest: keys, and types that its values may have; problems are told in words of ours.

Values that mean more than their type says (names, paths, settings) are checked in ``orchestrator.manifest``.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.yaml_document import Place
from ship.presets import Preset

__all__ = [
    "MANIFEST_KEYS",
    "describe_unknown_key",
    "describe_value",
    "find_schema_problems",
    "find_tag_problem",
]

_EXPECTED = {
    "string_type": "text",
    "string_too_short": "text",
    "int_type": "a whole number",
    "dict_type": "a mapping",
    "list_type": "a list",
    "model_type": "a mapping",
}
# What MLflow takes as the key of a tag.
_TAG_KEY = re.compile(r"[\w .:/-]{1,250}")
_MAX_TAG_CHARS = 1000
_RESERVED_TAGS = ("mlflow.", "ship.")


class _TaskModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    data: Any
    tags: dict[str, Any] = {}
    config: dict[str, Any] = {}
    preset: Preset | None = None
    search: Any = None


class _ManifestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1] = 1
    backbone: str = Field("bundled", min_length=1)
    store: str | None = Field(None, min_length=1)
    workers: int | None = Field(None, ge=1)
    defaults: dict[str, Any] = {}
    preset: Preset | None = None
    search: Any = None
    checks: dict[str, Any] = {}
    tasks: list[_TaskModel] = []
    tasks_from: str | None = Field(None, min_length=1)


MANIFEST_KEYS = tuple(_ManifestModel.model_fields)


def find_schema_problems(value: dict[str, Any]) -> list[tuple[Place, str]]:
    """Places where keys or types are wrong, and what is wrong there."""
    try:
        _ManifestModel.model_validate(value)
    except ValidationError as error:
        return [(detail["loc"], _message(detail)) for detail in error.errors()]
    return []


def find_tag_problem(key: str, value: object) -> str | None:
    """What is wrong with a tag, if anything is."""
    if not _TAG_KEY.fullmatch(key) or key.startswith(_RESERVED_TAGS):
        return (
            "expected a tag name of 1 to 250 letters, digits, spaces and _ - . : /, "
            f"which does not start with {' or '.join(_RESERVED_TAGS)}"
        )
    if not isinstance(value, (str, int, float)) or len(str(value)) > _MAX_TAG_CHARS:
        return f"expected text of at most {_MAX_TAG_CHARS} characters, got {describe_value(value)}"
    return None


def describe_unknown_key(name: str, known: Iterable[str]) -> str:
    """The message for a key that is none of ``known``."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return (
        f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known are {', '.join(known)}"
    )


def describe_value(value: object) -> str:
    """A value for a message: short, and collections by their kind."""
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _message(detail: ErrorDetails) -> str:
    kind, got = detail["type"], describe_value(detail["input"])
    if kind == "extra_forbidden":
        model = _TaskModel if detail["loc"][0] == "tasks" else _ManifestModel
        return describe_unknown_key(str(detail["loc"][-1]), model.model_fields)
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
