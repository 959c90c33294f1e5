"""JSON from outside: what is refused before it is parsed, and how little is looked at for that."""

from typing import Any

import pytest

from orchestrator.serve import json_document
from orchestrator.serve.json_document import parse_json
from orchestrator.serve.problems import Problem


def parse(content: bytes, max_depth: int = 4, max_values: int = 100) -> Any:
    return parse_json(content, max_depth=max_depth, max_values=max_values)


def refusal(content: bytes) -> str:
    with pytest.raises(Problem) as refused:
        parse(content)
    assert (refused.value.status, refused.value.kind) == (400, "json-invalid")
    return refused.value.detail


class Walked:
    """A pattern that counts the brackets that are looked at."""

    def __init__(self) -> None:
        self.pattern, self.num_found = json_document._BRACKET, 0

    def finditer(self, content: bytes) -> Any:
        for found in self.pattern.finditer(content):
            self.num_found += 1
            yield found


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> Walked:
    walked = Walked()
    monkeypatch.setattr(json_document, "_BRACKET", walked)
    return walked


def test_what_is_well_is_parsed() -> None:
    assert parse(b'{"a": [1, {"b": "]]}}[[{{"}], "c": "\\"]"}') == {"a": [1, {"b": "]]}}[[{{"}], "c": '"]'}
    assert parse(b"[[[[]]]]") == [[[[]]]]


@pytest.mark.parametrize("content", [b"]" * 10_000, b"[" + b"}" * 10_000, b"[]" + b"]" * 10_000])
def test_brackets_that_only_close_are_not_walked_through(content: bytes, walked: Walked) -> None:
    assert "more brackets are closed" in refusal(content)
    assert walked.num_found == 0


def test_a_bracket_is_opened_before_it_is_closed(walked: Walked) -> None:
    assert "not opened" in refusal(b"]" * 50 + b"[" * 50)
    assert walked.num_found == 1


def test_brackets_are_as_few_as_values(walked: Walked) -> None:
    assert "more than 100 values" in refusal(b"[]" * 101)
    assert walked.num_found == 0


@pytest.mark.parametrize("content", [b'"' + b'\\"' * 1000, b'["' + b'\\"[' * 1000, b'"\\'])
def test_a_string_without_an_end_is_looked_at_once(content: bytes) -> None:
    """Else each quote in it would begin another search to the end, which took minutes for a megabyte."""
    assert len(json_document._STRING.findall(content)) == 1
    assert "line 1, column" in refusal(content)
