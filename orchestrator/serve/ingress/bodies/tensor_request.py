"""Parser of inference requests of the Open Inference Protocol: one tensor ``image``, pixels or image files.

``UINT8`` of shape ``[N,3,H,W]`` or ``[3,H,W]``, RGB pixels; or ``BYTES`` of shape ``[N]``, each the base64 of
an image file (JPEG, PNG, ...). Both are then seen as in tuning: pixels of the backbone's input size are taken
as they are where the task has no view of its own. Data may be flat or nested.
"""

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from orchestrator.serve.engine_api import Image
from orchestrator.serve.ingress.bodies.json_document import check_keys, json_problem, parse_json
from orchestrator.serve.ingress.problems import Problem

__all__ = ["INPUT", "OUTPUTS", "TensorRequest", "read_tensors"]

INPUT = "image"
OUTPUTS = ("probabilities", "label", "labels", "decision", "decision_because")
# inputs[0].data, N, channel, row.
_DEPTH = 8
_MORE_VALUES = 1000
# Of all pictures of a request, where the backbone's input is small.
_MIN_PIXELS = 2_000_000
_MAX_ID_CHARS = 128
_REQUEST_KEYS = ("id", "parameters", "inputs", "outputs")
_INPUT_KEYS = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_KEYS = ("name", "parameters")


@dataclass(frozen=True, kw_only=True)
class TensorRequest:
    """Parsed inference request.

    Attributes:
        id: Id that the reply repeats; None if the request has none.
        pixels: Pictures, all of one size; empty if there are files.
        files: Image files; empty if there are pixels.
        outputs: Names of the wanted output tensors.
    """

    id: str | None
    pixels: tuple[Image, ...] = ()
    files: tuple[bytes, ...] = ()
    outputs: tuple[str, ...] = OUTPUTS


def read_tensors(body: bytes, *, image_size: tuple[int, int], max_images: int) -> TensorRequest:
    """Parse the body of an inference request.

    Raises:
        Problem: 400, the JSON is invalid; 413, too many images.
    """
    # Of each image three channels, with their rows, in one array; or one string.
    most_large = max_images * 3 * (image_size[0] + 2)
    document = parse_json(
        body,
        max_depth=_DEPTH,
        max_values=3 * max(max_images * math.prod(image_size), _MIN_PIXELS) + most_large + _MORE_VALUES,
        max_large=most_large + _MORE_VALUES,
    )
    request = check_keys(document, "request", needed=("inputs",), known=_REQUEST_KEYS)
    inputs = request["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise json_problem(f"inputs: expected an array of one tensor named {INPUT!r}")
    tensor = check_keys(
        inputs[0], "inputs[0]", needed=("name", "shape", "datatype", "data"), known=_INPUT_KEYS
    )
    if tensor["name"] != INPUT:
        raise json_problem(f"inputs[0].name: expected {INPUT!r}")
    shape = _read_shape(tensor["shape"])
    id_, outputs = _read_id(request.get("id")), _read_outputs(request.get("outputs"))
    if tensor["datatype"] == "UINT8":
        pixels = _read_pixels(tensor["data"], shape, max_images)
        return TensorRequest(id=id_, pixels=pixels, outputs=outputs)
    if tensor["datatype"] == "BYTES":
        return TensorRequest(id=id_, files=_read_files(tensor["data"], shape, max_images), outputs=outputs)
    raise json_problem("inputs[0].datatype: expected UINT8 (pixels) or BYTES (base64 of image files)")


def _read_shape(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(size) is int and 0 < size < 1 << 31 for size in value):
        raise json_problem("inputs[0].shape: expected an array of whole numbers above 0")
    return value


def _read_id(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_ID_CHARS:
        raise json_problem(f"id: expected a string of at most {_MAX_ID_CHARS} printable characters")
    return value


def _read_outputs(value: Any) -> tuple[str, ...]:
    if value is None:
        return OUTPUTS
    if not isinstance(value, list) or not 0 < len(value) <= len(OUTPUTS):
        raise json_problem(f"outputs: expected an array of {', '.join(OUTPUTS)}, or of some of them")
    names = [
        check_keys(row, f"outputs[{number}]", needed=("name",), known=_OUTPUT_KEYS)["name"]
        for number, row in enumerate(value)
    ]
    if any(name not in OUTPUTS for name in names):
        raise json_problem(f"outputs: expected names out of {', '.join(OUTPUTS)}")
    return tuple(dict.fromkeys(names))


def _read_pixels(data: Any, shape: Sequence[int], max_images: int) -> tuple[Image, ...]:
    num_images = shape[0] if len(shape) == 4 else 1
    if len(shape) not in (3, 4) or shape[-3] != 3:
        raise json_problem("inputs[0].shape: expected [3, H, W] or [N, 3, H, W]")
    _check_number(num_images, max_images)
    values = _flatten(data, shape)
    # Types first: an array of mixed ones would be as wide as the longest string among them.
    if set(map(type, values)) != {int}:
        raise json_problem(f"inputs[0].data: expected {math.prod(shape)} whole numbers, as the shape says")
    try:
        content = bytearray(values)
    except ValueError as error:
        raise json_problem("inputs[0].data: expected whole numbers from 0 to 255") from error
    return tuple(np.frombuffer(content, dtype=np.uint8).reshape(num_images, *shape[-3:]))


def _flatten(data: Any, shape: Sequence[int]) -> list[Any]:
    """Values in row-major order, as many as the shape has; their types are not checked."""
    is_nested = isinstance(data, list) and len(data) > 0 and isinstance(data[0], list)
    values = [data]
    for size in shape if is_nested else [math.prod(shape)]:
        if not all(isinstance(row, list) and len(row) == size for row in values):
            expected = "a flat array, or one nested" if is_nested else f"{math.prod(shape)} whole numbers,"
            raise json_problem(f"inputs[0].data: expected {expected} as the shape says")
        values = list(chain.from_iterable(values))
    return values


def _read_files(data: Any, shape: Sequence[int], max_images: int) -> tuple[bytes, ...]:
    if len(shape) != 1:
        raise json_problem("inputs[0].shape: expected [N], one string an image file")
    _check_number(shape[0], max_images)
    if not isinstance(data, list) or len(data) != shape[0]:
        raise json_problem(f"inputs[0].data: expected an array of {shape[0]} strings, as the shape says")
    return tuple(_read_file(text, f"inputs[0].data[{number}]") for number, text in enumerate(data))


def _read_file(text: Any, place: str) -> bytes:
    if not isinstance(text, str):
        raise json_problem(f"{place}: expected a string, the base64 of an image file")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise json_problem(f"{place}: not base64") from error


def _check_number(num_images: int, max_images: int) -> None:
    if num_images > max_images:
        found = f"{num_images} images: expected at most {max_images}"
        raise Problem("batch-too-large", found)
