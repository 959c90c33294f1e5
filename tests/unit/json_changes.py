"""Hypothesis strategies for JSON documents that are sound but for one or two places."""

import copy
from typing import Any

from hypothesis import strategies as st

__all__ = ["ODD_VALUES", "changed", "written"]

# fmt: off
ODD_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from([
        0, -1, 1, 2, 5, 1.0, 10**18, 10**400, -(2**63), 1e308, float("nan"), float("inf"), "", " ", "0", "1",
        "01", "..", "a/b", "x" * 5000, "0" * 64, "\x00", "\n", "\ud800", "\u202e", "e\u0301", "good", "*",
        [], {}, [[]], [None], [{}], {"": None}, {"\ud800": 1}, {"1": "0" * 64}, [[[[[[[[]]]]]]]],
        # A further change may be inside of what one put there.
    ]).map(copy.deepcopy),
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
                 | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6),
)
_KEYS = st.text(max_size=4) | st.sampled_from(["schema", "task", "1", "trail", "x" * 5000])
_PIECES = [b"", b"\xff", b"\x00", b"[" * 3000, b'{"a":', b"\xef\xbb\xbf"]
# fmt: on


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """The document with up to two places changed, left out or added."""
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        places = list(_places(found))
        if not places:
            return draw(ODD_VALUES)
        parent, key = draw(st.sampled_from(places))
        act = draw(st.sampled_from(["set", "set", "set", "delete", "add"]))
        if act == "set":
            parent[key] = draw(ODD_VALUES)
        elif act == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=4) | st.sampled_from(["schema", "task", "1", "trail"]))] = draw(
                ODD_VALUES
            )
        else:
            parent.append(draw(ODD_VALUES))
    return found


@st.composite
def written(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some bytes changed, cut off or repeated."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 20)))
    middle = draw(st.sampled_from([*_PIECES, content[start:end] * 2]))
    return content[:start] + middle + content[end:]


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    else:
        return
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)
