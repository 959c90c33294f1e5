"""Strict parser of JSON from clients, which checks limits before it parses.

A few bytes of JSON can become many bytes of Python objects, and nesting becomes recursion: both are counted
first.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.serve.ingress.problems import Problem

__all__ = ["check_keys", "json_problem", "parse_json"]

# Text between quotes has no structure. A string without an end extends to the end of the document: otherwise
# the search would begin again at each quote in it.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
# Two of them may be a character.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _RefusedError(ValueError):
    """JSON that Python accepts and this parser refuses."""


def parse_json(content: bytes, *, max_depth: int, max_values: int, max_large: int) -> Any:
    """Parse a document.

    Args:
        content: UTF-8; the caller has limited its length.
        max_depth: Most arrays and objects within one another.
        max_values: Most commas and brackets, which limit the number of values.
        max_large: Most arrays, objects and strings, keys included: each becomes up to a hundred times its
            bytes, a number less than ten times.

    Raises:
        Problem: 400, the document is not JSON, has a duplicate key, NaN or Infinity, or exceeds a limit.
    """
    _check_bounds(content, max_depth, max_values, max_large)
    try:
        found = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        if _SURROGATE.search(content):
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        # No reply can have it either.
        raise json_problem("a text has one half of a surrogate pair, which is no character") from error
    except UnicodeDecodeError as error:
        raise json_problem(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise json_problem(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except _RefusedError as error:
        raise json_problem(str(error)) from error
    except (ValueError, RecursionError) as error:
        # The first: an integer of thousands of digits.
        raise json_problem("a number is too long, or something is nested too deep") from error


def check_keys(value: Any, place: str, *, needed: Sequence[str], known: Sequence[str]) -> Mapping[str, Any]:
    """Return an object if it has all needed keys and no unknown ones.

    Raises:
        Problem: 400, it is not such an object; names all unknown and missing keys.
    """
    if not isinstance(value, dict):
        raise json_problem(f"{place}: expected an object, found {_kind(value)}")
    unknown, missing = sorted(value.keys() - set(known)), [key for key in needed if key not in value]
    found = [f"unknown {_list(unknown)}"] if unknown else []
    found += [f"missing {_list(missing)}"] if missing else []
    if found:
        raise json_problem(f"{place}: {'; '.join(found)}; known are {', '.join(known)}")
    return value


def json_problem(detail: str) -> Problem:
    """Problem of a document that differs from the expected one."""
    return Problem("json-invalid", detail)


def _check_bounds(content: bytes, max_depth: int, max_values: int, max_large: int) -> None:
    # No more than are allowed: the text between two of them becomes an object, too, meanwhile.
    bare, num_strings = _STRING.subn(b"", content, count=max_large + 1)
    num_opened = bare.count(b"[") + bare.count(b"{")
    if num_strings + num_opened > max_large:
        raise json_problem(f"more than {max_large} arrays, objects and strings")
    if bare.count(b",") + num_opened > max_values:
        raise json_problem(f"more than {max_values} values")
    # Those that close are bounded by those that open, which were counted above.
    if bare.count(b"]") + bare.count(b"}") > num_opened:
        raise json_problem("more brackets are closed than are opened")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth < 0:
            raise json_problem("a bracket is closed that was not opened")
        if depth > max_depth:
            raise json_problem(f"arrays and objects in one another deeper than {max_depth}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) < 1000 else keys[:1]
        raise _RefusedError(f"duplicate key in an object: {_list(twice)}")
    return found


def _refuse_constant(name: str) -> None:
    raise _RefusedError(f"{name} is not JSON")


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
