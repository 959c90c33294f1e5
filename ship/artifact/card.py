"""``prompt.json``, the card of an artifact: all about a prompt but its tensors, read strictly."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Self

from ship.backbone_info import BackboneInfo
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError, ConfigError
from ship.settings.config import METHOD_VERSION, TuneConfig
from ship.settings.view import DEFAULT_VIEW, View

__all__ = [
    "CARD",
    "README",
    "RECORD",
    "SCHEMA_VERSION",
    "TENSORS",
    "PromptCard",
    "backbone_entry",
    "parse_json",
]

# The names of an artifact's files.
TENSORS, CARD, RECORD, README = "prompt.safetensors", "prompt.json", "record.json", "README.md"
SCHEMA_VERSION = 3
# Versions that are read, each with the method whose prompts it describes.
_METHODS = {1: "ship-1", 2: METHOD_VERSION, SCHEMA_VERSION: METHOD_VERSION}
# Keys that came with a version, with what they mean in a file of an earlier one.
_ADDED: dict[int, dict[str, Any]] = {
    2: {"head_layers": [], "view": DEFAULT_VIEW.to_dict()},
    3: {"decision": DecisionRule().to_dict()},
}
_MAX_LABELS = 100_000
_LARGEST_NUMBER = 1e30
_HALF = re.compile("[\\ud800-\\udfff]")
_HEX_64 = re.compile(r"[0-9a-f]{64}")
_VIEW_KEYS = tuple(DEFAULT_VIEW.to_dict())
_BACKBONE_KEYS = ("name", "fingerprint", "image_size", "interpolation", "mean", "std")


@dataclass(frozen=True, kw_only=True)
class PromptCard:
    """Content of ``prompt.json``.

    Attributes:
        task: Name of the task.
        task_key: sha256 over data, settings, backbone and method version; None where no manifest planned it.
        backbone: Name, fingerprint and preprocessing of the backbone that it belongs to.
        config: Settings of the tuning.
        level_starts: First layer of each level.
        head_layers: Layers before the last that the head reads.
        view: Part of a picture that is looked at, and its tiles.
        decision: Rule that makes a decision of the scores, unless another one was set since.
        labels: Class names, in the order of the scores.
        metrics: Held-out accuracy with its interval, the linear probe's, counts, seconds.
        data_fingerprint: Fingerprint of the images and labels.
        probe: Scores that the prompt must give for a drawn image, checked before it serves.
        files: Name to sha256 and size in bytes of every other file of the artifact.
        schema: Version of this file's layout.
        method: Version of the method that made the tensors.
    """

    task: str
    task_key: str | None
    backbone: dict[str, Any]
    config: TuneConfig
    level_starts: tuple[int, ...]
    labels: tuple[str, ...]
    metrics: dict[str, float]
    data_fingerprint: str
    probe: dict[str, Any]
    files: dict[str, dict[str, Any]]
    head_layers: tuple[int, ...] = ()
    view: View = DEFAULT_VIEW
    decision: DecisionRule = field(default_factory=DecisionRule)
    schema: int = SCHEMA_VERSION
    method: str = METHOD_VERSION

    def to_json(self) -> bytes:
        """The file's content."""
        values = {known.name: getattr(self, known.name) for known in fields(self)}
        values |= {name: values[name].to_dict() for name in ("config", "view", "decision")}
        return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the file; anything unexpected is refused.

        Raises:
            ArtifactError: Lists all problems.
        """
        values = parse_json(content, "prompt.json")
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ArtifactError(f"prompt.json: a text has half a surrogate pair: {error}") from error
        if _is_int(values.get("schema")) and values["schema"] > SCHEMA_VERSION:
            expected = ", ".join(map(str, _METHODS))
            raise ArtifactError(
                f"prompt.json: schema: expected {expected}, found {values['schema']}, of a later version of "
                "this program; update this program"
            )
        later = [added for version, added in _ADDED.items() if values.get("schema") in range(1, version)]
        if not any(set(values) & set(added) for added in later):
            values |= {key: value for added in later for key, value in added.items()}
        known = {known.name for known in fields(cls)}
        problems = [f"prompt.json: unknown key {key!r}" for key in sorted(set(values) - known)]
        problems += [f"prompt.json: missing key {key!r}" for key in sorted(known - set(values))]
        if not problems:
            problems = _find_problems(values)
        if problems:
            raise ArtifactError(problems)
        try:
            config = TuneConfig.from_dict(values["config"])
        except (ConfigError, TypeError) as error:
            raise ArtifactError(f"prompt.json: config: {error}") from error
        try:
            view = View.from_dict(values["view"])
        except ConfigError as error:
            raise ArtifactError(f"prompt.json: view: {error}") from error
        try:
            decision = DecisionRule.from_dict(values["decision"])
        except ConfigError as error:
            raise ArtifactError(f"prompt.json: {error}") from error
        return cls(
            **{
                **values,
                "config": config,
                "view": view,
                "decision": decision,
                "level_starts": tuple(values["level_starts"]),
                "head_layers": tuple(values["head_layers"]),
                "labels": tuple(values["labels"]),
            }
        )


def backbone_entry(info: BackboneInfo) -> dict[str, Any]:
    """The card's part about the backbone."""
    return {name: getattr(info, name) for name in _BACKBONE_KEYS}


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object without duplicate keys, NaN or infinity.

    Raises:
        ArtifactError: It is something else.
    """
    try:
        values = json.loads(content, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name}: expected a JSON object: {error}") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{name}: expected a JSON object, found {type(values).__name__}")
    return values


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _find_problems(values: Mapping[str, Any]) -> list[str]:
    checks = {
        f"schema: expected {', '.join(map(str, _METHODS))}": _is_int(values["schema"])
        and values["schema"] in _METHODS,
        "method: expected that of the schema": _is_int(values["schema"])
        and values["method"] == _METHODS.get(values["schema"]),
        "task: expected a name": isinstance(values["task"], str) and 0 < len(values["task"]) <= 63,
        "task_key: expected 64 hex digits or null": values["task_key"] is None
        or _is_digest(values["task_key"]),
        "data_fingerprint: expected 64 hex digits": _is_digest(values["data_fingerprint"]),
        f"backbone: expected exactly {', '.join(sorted(_BACKBONE_KEYS))}": _is_backbone(values["backbone"]),
        "config: expected settings by name": isinstance(values["config"], dict),
        "level_starts: expected rising layer numbers from 0": _are_level_starts(values["level_starts"]),
        "head_layers: expected rising layer numbers": _are_rising(values["head_layers"]),
        f"view: expected exactly {', '.join(_VIEW_KEYS)}, with a fixed grid": _is_view(values["view"]),
        "labels: expected distinct names": _are_labels(values["labels"]),
        "metrics: expected names and numbers": _are_numbers(values["metrics"]),
        "probe: expected `image` and `logits`, a number for each label": _is_probe(values),
        "files: expected sha256 and bytes for each file": _are_files(values["files"]),
    }
    names = {text: text.split(":")[0] for text in checks}
    return [
        f"prompt.json: {text}, found {str(values[names[text]])[:100]!r}"
        for text, good in checks.items()
        if not good
    ]


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _HEX_64.fullmatch(value) is not None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    """Also not infinite, which `7e777` reads as, and of a size that float32 holds."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER


def _is_backbone(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != set(_BACKBONE_KEYS):
        return False
    size = value["image_size"]
    is_size = isinstance(size, (list, tuple)) and len(size) == 2 and all(map(_is_int, size))
    return is_size and _is_digest(value["fingerprint"])


def _is_view(value: object) -> bool:
    if not isinstance(value, dict) or value.get("tiles") == "auto":
        return False
    return {*_VIEW_KEYS} <= {*value} <= {one.name for one in fields(View)}


def _are_level_starts(value: object) -> bool:
    return isinstance(value, list) and value[:1] == [0] and _are_rising(value)


def _are_rising(value: object) -> bool:
    if not isinstance(value, list) or not all(_is_int(layer) and layer >= 0 for layer in value):
        return False
    return all(a < b for a, b in pairwise(value))


def _are_labels(value: object) -> bool:
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_LABELS:
        return False
    return all(_is_name(label) for label in value) and len(set(value)) == len(value)


def _is_name(value: object) -> bool:
    # JSON may escape half a character, which no reply could be written with.
    return isinstance(value, str) and len(value) > 0 and not _HALF.search(value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(number) for number in value.values())


def _is_probe(values: Mapping[str, Any]) -> bool:
    probe = values["probe"]
    if not isinstance(probe, dict) or set(probe) != {"image", "logits"}:
        return False
    if not isinstance(probe["logits"], list) or not isinstance(values["labels"], list):
        return False
    return len(probe["logits"]) == len(values["labels"]) and all(_is_number(x) for x in probe["logits"])


def _are_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and set(entry) == {"sha256", "bytes"}
        and _is_digest(entry["sha256"])
        and _is_int(entry["bytes"])
        for entry in value.values()
    )
