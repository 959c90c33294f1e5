"""JSON from outside: what is refused before it is parsed, and how little is looked at for that."""

from typing import Any

import pytest

from orchestrator.serve.ingress.bodies.json_document import parse_json
from orchestrator.serve.ingress.problems import Problem


def parse(content: bytes) -> Any:
    return parse_json(content, max_depth=4, max_values=100, max_large=50)


def refusal(content: bytes) -> str:
    with pytest.raises(Problem) as refused:
        parse(content)
    assert (refused.value.status, refused.value.kind) == (400, "json-invalid")
    return refused.value.detail


def test_what_is_well_is_parsed() -> None:
    assert parse(b'{"a": [1, {"b": "]]}}[[{{"}], "c": "\\"]"}') == {"a": [1, {"b": "]]}}[[{{"}], "c": '"]'}
    assert parse(b"[[[[]]]]") == [[[[]]]]


@pytest.mark.parametrize("content", [b"]" * 10_000, b"[" + b"}" * 10_000, b"[]" + b"]" * 10_000])
def test_brackets_that_only_close_are_not_walked_through(content: bytes) -> None:
    """A walk would find the first bracket that closes, and refuse it in other words."""
    assert "more brackets are closed" in refusal(content)


def test_a_bracket_is_opened_before_it_is_closed() -> None:
    """A walk beyond the first bracket would find them nested too deep, or even."""
    assert "not opened" in refusal(b"]" * 40 + b"[" * 40)


def test_brackets_are_counted_before_they_are_walked_through() -> None:
    """A walk would find that the first bracket closes, and refuse it in other words."""
    assert "more than 50 arrays" in refusal(b"]" + b"[]" * 51)
    assert "more than 100 values" in refusal(b"][" + b"0," * 100 + b"0]")


@pytest.mark.parametrize("content", [b'"' + b'\\"' * 500_000, b'["' + b'\\"[' * 500_000, b'"\\'])
def test_a_string_without_an_end_is_looked_at_once(content: bytes) -> None:
    """Else each quote in it would begin another search to the end: minutes for a megabyte."""
    assert "line 1, column" in refusal(content)


@pytest.mark.parametrize(
    ("large", "num"), [(b"[]", 49), (b"{}", 49), (b'""', 49), (b'{"":0}', 24), (b'[""]', 24)]
)
def test_arrays_objects_and_strings_are_bounded_apart_from_numbers(large: bytes, num: int) -> None:
    assert parse(b"[" + b",".join([b"0"] * 99) + b"]") == [0] * 99
    assert len(parse(b"[" + b",".join([large] * num) + b"]")) == num
    said = refusal(b"[" + b",".join([large] * (num + 1)) + b"]")
    assert said == "more than 50 arrays, objects and strings"
    keys = b",".join(b'"%d":0' % number for number in range(50))
    assert "more than 50 arrays, objects and strings" in refusal(b"{" + keys + b"}")
