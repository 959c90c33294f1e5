"""The JSON Schema of a manifest for editors, from the models and the settings.

It covers keys, types and choices; ``orchestrator.manifest.load`` checks paths, names and ranges.
"""

import inspect
import re
from typing import Any

from pydantic import TypeAdapter

from orchestrator.durations import DURATION_PATTERN
from orchestrator.manifest.floors import Floors
from orchestrator.manifest.model import TERMS, DataLimits
from orchestrator.manifest.schema import BackboneModel, FolderModel, ManifestModel
from orchestrator.names import TASK_NAME_PATTERN
from ship.data import DataSource
from ship.settings.config import TuneConfig
from ship.settings.search_config import AUTO, SearchConfig
from ship.settings.view import View

__all__ = ["manifest_json_schema"]

_Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Schemas of values that the models leave to later checks, by key; a key means the same everywhere.
_REFINED: dict[str, _Schema] = {
    "name": {"type": "string", "pattern": f"^{TASK_NAME_PATTERN}$"},
    "backbone": {"anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/Backbone"}]},
    "data": {"anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/Data"}]},
    "tags": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
    "view": {"$ref": "#/$defs/View"},
    "gate": {"$ref": "#/$defs/Gate"},
    "config": {"$ref": "#/$defs/Settings"},
    "defaults": {"$ref": "#/$defs/Defaults"},
    "search": {"anyOf": [{"const": False}, {"$ref": "#/$defs/Search"}]},
    "checks": {"$ref": "#/$defs/Checks"},
    "priority": {"type": "integer"},
    "approvals": {"type": "integer", "enum": [0, 1]},
    "deadline": {"type": "string", "format": "date-time"},
    "budget": {"type": "string", "minLength": 2, "pattern": DURATION_PATTERN},
    "tasks_from": {
        "anyOf": [
            {"$ref": "#/$defs/Folder"},
            {"type": "array", "items": {"$ref": "#/$defs/Folder"}},
        ]
    },
}


def manifest_json_schema() -> _Schema:
    """The schema as plain values, in a fixed order."""
    schema = ManifestModel.model_json_schema()
    task = _refine(schema.pop("$defs")["TaskModel"])
    settings = _with_auto(_settings_schema(TuneConfig))
    beside = {name: task["properties"][name] for name in ("tags", "view", "gate", "thumbnails", *TERMS)}
    data = _settings_schema(DataSource)
    beside["data"] = {"description": "Of every task; not the path", "$ref": "#/$defs/DataDefaults"}
    definitions = {
        "Backbone": BackboneModel.model_json_schema(),
        "Checks": _settings_schema(DataLimits),
        "Data": {**data, "required": ["path"]},
        "DataDefaults": {
            **data,
            "description": "Settings of the data of every task that gives none of its own",
            "properties": {name: each for name, each in data["properties"].items() if name != "path"},
        },
        "Defaults": {**settings, "properties": {**beside, **settings["properties"]}},
        "Folder": {"anyOf": [{"type": "string", "minLength": 1}, _refine(FolderModel.model_json_schema())]},
        "Gate": _settings_schema(Floors),
        "Search": _settings_schema(SearchConfig),
        "Settings": settings,
        "Task": task,
        "View": _settings_schema(View),
    }
    refined = _refine(schema)
    refined["properties"]["tasks"]["items"] = {"$ref": "#/$defs/Task"}
    return {"$schema": _DIALECT, "title": "SHIP manifest", **_tidy({**refined, "$defs": definitions})}


def _refine(model: _Schema) -> _Schema:
    """A model's schema with the refined schemas of its keys."""
    properties = {
        name: {"description": values["description"], **_REFINED[name]} if name in _REFINED else values
        for name, values in model["properties"].items()
    }
    return {**model, "properties": properties}


def _settings_schema(settings: type) -> _Schema:
    """Schema of a dataclass of settings, with the descriptions of its docstring."""
    schema = TypeAdapter(settings).json_schema()
    texts = _attribute_texts(settings)
    properties = {
        name: {"description": texts.get(name, name), **values}
        for name, values in schema["properties"].items()
    }
    description = (inspect.getdoc(settings) or "").partition("\n")[0]
    return {
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _with_auto(settings: _Schema) -> _Schema:
    """The schema of settings, some of which a search may choose."""
    properties = settings["properties"]
    chosen = {name: {**properties[name], "enum": [*properties[name]["enum"], "auto"]} for name in AUTO}
    return {**settings, "properties": {**properties, **chosen}}


def _attribute_texts(documented: type) -> dict[str, str]:
    """The section ``Attributes`` of a docstring, by name."""
    section = (inspect.getdoc(documented) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).replace("``", "`") for name, text in found}


def _tidy(value: Any) -> Any:
    """Without pydantic's titles, which repeat the names."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _tidy(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}
