"""``held_out.json``: class scores of the held-out images, with paths, digests and thumbnails of mistakes.

It is the evidence behind an artifact's figures, and what decision rules are chosen on and versions are
compared by. Serving does not read it. An artifact of an earlier version has none. Loads without torch.

Shapes: B images, C classes.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ship.artifact.card import parse_json
from ship.errors import ArtifactError

__all__ = [
    "HELD_OUT",
    "MAX_HELD_OUT_BYTES",
    "MAX_IMAGES",
    "MAX_THUMBNAILS",
    "MAX_THUMBNAILS_BYTES",
    "HeldOut",
]

HELD_OUT = "held_out.json"
MAX_HELD_OUT_BYTES = 8 << 20
MAX_IMAGES = 100_000
MAX_THUMBNAILS = 64
MAX_THUMBNAILS_BYTES = 400 << 10
_MAX_PATH = 1 << 16
_SCHEMA = 1
_LARGEST_NUMBER = 1e30
_DIGEST = re.compile(r"[0-9a-f]{32}")
_PLACE = re.compile(r"0|[1-9][0-9]{0,5}")
_HALF = re.compile("[\\ud800-\\udfff]")
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Answers on held-out images.

    Attributes:
        labels: Class names, in the order of the scores.
        paths: Path of each image, relative to the data set's root.
        digests: First 32 hex digits of the sha256 over each image's pixels as they were tuned with: uint8,
            ``3,H,W``, or ``T,3,H,W`` of a view of several tiles. The file's own bytes are not kept.
        labels_B: Label of each image, a place in ``labels``.
        logits_BC: Class scores, to six significant digits.
        probe_logits_BC: The linear probe's, if they are known.
        distances_B: Distance of each image from the training images, if it was measured.
        thumbnails: JPEG of some images, by place: of mistakes, and of right answers with the least lead.
        num_images: Number of held-out images. The file is bounded: of more than fit, evenly spaced ones are
            kept.
    """

    labels: tuple[str, ...]
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    labels_B: tuple[int, ...]
    logits_BC: tuple[tuple[float, ...], ...]
    probe_logits_BC: tuple[tuple[float, ...], ...] | None = None
    distances_B: tuple[float, ...] | None = None
    thumbnails: Mapping[int, bytes] = field(default_factory=dict)
    num_images: int

    def __len__(self) -> int:
        """Number of images that are kept."""
        return len(self.paths)

    def to_json(self) -> bytes:
        """The file's content, which ``from_json`` takes.

        Raises:
            ArtifactError: It would be too large, or a value is not as expected.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        values |= {
            "schema": _SCHEMA,
            "thumbnails": {
                str(place): base64.b64encode(jpeg).decode() for place, jpeg in sorted(self.thumbnails.items())
            },
        }
        # Half characters, of file names that are not UTF-8, are written as escapes.
        content = json.dumps(values, separators=(",", ":"), sort_keys=True).encode()
        self.from_json(content)
        return content

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the file; anything unexpected is refused.

        Raises:
            ArtifactError: Says what is not as expected.
        """
        if len(content) > MAX_HELD_OUT_BYTES:
            raise ArtifactError(f"{HELD_OUT}: {len(content)} bytes, expected at most {MAX_HELD_OUT_BYTES}")
        values = parse_json(content, HELD_OUT)
        if type(schema := values.get("schema")) is int and schema > _SCHEMA:
            raise ArtifactError(
                f"{HELD_OUT}: schema: expected {_SCHEMA}, found {schema}, of a later version of this "
                "program; update this program"
            )
        problems = [f"unknown key {key!r}" for key in sorted(set(values) - {"schema", *_NAMES})]
        problems += [f"missing key {key!r}" for key in sorted({"schema", *_NAMES} - set(values))]
        problems = problems or _find_problems(values)
        if problems:
            raise ArtifactError([f"{HELD_OUT}: {problem}"[:300] for problem in problems])
        probe, distances = values["probe_logits_BC"], values["distances_B"]
        return cls(
            labels=tuple(values["labels"]),
            paths=tuple(values["paths"]),
            digests=tuple(values["digests"]),
            labels_B=tuple(values["labels_B"]),
            logits_BC=_as_rows(values["logits_BC"]),
            probe_logits_BC=None if probe is None else _as_rows(probe),
            distances_B=None if distances is None else tuple(map(float, distances)),
            thumbnails={int(place): base64.b64decode(text) for place, text in values["thumbnails"].items()},
            num_images=values["num_images"],
        )


_NAMES = tuple(one.name for one in fields(HeldOut))


def _find_problems(values: Mapping[str, Any]) -> list[str]:
    labels, paths = values["labels"], values["paths"]
    if type(values["schema"]) is not int or values["schema"] != _SCHEMA:
        return [f"schema: expected {_SCHEMA}, found {values['schema']!r:.80}"]
    if not _are(labels, _is_label) or not labels or len(set(labels)) != len(labels):
        return ["labels: expected distinct names"]
    if not _are(paths, _is_path) or len(paths) > MAX_IMAGES:
        return [f"paths: expected at most {MAX_IMAGES} paths of at most {_MAX_PATH} characters"]
    num, wide = len(paths), len(labels)

    def is_row(value: object) -> bool:
        return _are(value, _is_number, wide)

    checks = {
        f"num_images: expected a whole number from {num}": _is_count(values["num_images"], num, math.inf),
        f"digests: expected {num} times 32 hex digits": _are(values["digests"], _is_digest, num),
        f"labels_B: expected {num} places of labels": _are(
            values["labels_B"], lambda value: _is_count(value, 0, wide - 1), num
        ),
        f"logits_BC: expected {num} rows of {wide} numbers": _are(values["logits_BC"], is_row, num),
        f"probe_logits_BC: expected {num} rows of {wide} numbers, or null": values["probe_logits_BC"] is None
        or _are(values["probe_logits_BC"], is_row, num),
        f"distances_B: expected {num} numbers from 0, or null": values["distances_B"] is None
        or _are(values["distances_B"], lambda value: _is_number(value) and value >= 0, num),
        f"thumbnails: expected at most {MAX_THUMBNAILS} JPEG files in base64 by place, of at most "
        f"{MAX_THUMBNAILS_BYTES} bytes together": _are_thumbnails(values["thumbnails"], num),
    }
    return [text for text, good in checks.items() if not good]


def _are(value: object, is_one: Any, num: int | None = None) -> bool:
    return isinstance(value, list) and num in (None, len(value)) and all(map(is_one, value))


def _is_label(value: object) -> bool:
    return isinstance(value, str) and len(value) > 0 and not _HALF.search(value)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_PATH


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_count(value: Any, low: int, high: float) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER


def _are_thumbnails(value: object, num: int) -> bool:
    if not isinstance(value, dict) or len(value) > MAX_THUMBNAILS:
        return False
    total = 0
    for place, text in value.items():
        if not _PLACE.fullmatch(place) or int(place) >= num or not isinstance(text, str):
            return False
        try:
            jpeg = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return False
        if not jpeg.startswith(_JPEG):
            return False
        total += len(jpeg)
    return total <= MAX_THUMBNAILS_BYTES


def _as_rows(rows: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in rows)
