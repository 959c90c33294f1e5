"""Memory that it takes to read a body of tensors: no small body takes much."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from orchestrator.serve.ingress.bodies.tensor_request import read_tensors
from orchestrator.serve.ingress.problems import Problem

# What Python makes of the numbers of a body that is well: a place in a list for two bytes or more.
_TIMES = 16


def peak_bytes(body: bytes) -> int:
    """The most memory that refusing a body takes."""
    tracemalloc.start()
    try:
        with pytest.raises(Problem) as refused:
            read_tensors(body, image_size=(32, 32), max_images=4)
        assert (refused.value.status, refused.value.kind) == (400, "json-invalid")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def body_of(data: Any, num_images: int = 1) -> bytes:
    image = {"name": "image", "datatype": "UINT8", "shape": [num_images, 3, 32, 32], "data": data}
    return json.dumps({"inputs": [image]}, separators=(",", ":")).encode()


def test_a_long_string_among_numbers() -> None:
    """An array of both would have each number as wide as the string."""
    body = body_of([0] * 3071 + ["x" * 10_000])
    assert peak_bytes(body) < _TIMES * len(body)


@pytest.mark.parametrize("value", [{"": 0}, {}, [], [0], "ab", {"a": [{"b": []}]}])
def test_many_small_things_in_place_of_numbers(value: Any) -> None:
    body = body_of([value] * 9216, 4)
    assert peak_bytes(body) < _TIMES * len(body)


def test_many_keys_of_one_object() -> None:
    body = body_of({f"{number:04x}": 0 for number in range(12_288)}, 4)
    assert peak_bytes(body) < _TIMES * len(body)


def test_as_many_images_as_may_be_are_read_however_nested() -> None:
    image_size, num = (32, 32), 4
    pixels = np.random.default_rng(0).integers(0, 256, (num, 3, *image_size), dtype=np.uint8)
    for data in (pixels.tolist(), pixels.flatten().tolist()):
        found = read_tensors(body_of(data, num), image_size=image_size, max_images=num)
        np.testing.assert_array_equal(found.pixels, pixels)
