"""Parser of untrusted YAML into plain values with their lines.

Tags that build objects are refused, and so are several documents, keys that are repeated or not text, deep
nesting (libyaml's composer recurses until the process dies) and aliases that multiply ("billion laughs").
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from orchestrator.errors import ManifestError

__all__ = ["Place", "YamlDocument", "parse_yaml"]

Place = tuple[str | int, ...]

_MAX_DEPTH = 30
_MAX_VALUES = 2_000_000
_MERGE_TAG = "tag:yaml.org,2002:merge"
# Standard tags of values that JSON has not, and that nothing here takes.
_NOT_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("binary", "omap", "pairs", "set")}


class _Loader(yaml.CSafeLoader):
    """Loader of safe values, and of numbers such as 1e-3, which YAML 1.1 reads as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True, kw_only=True)
class YamlDocument:
    """Content of a file, with its lines.

    Attributes:
        value: Plain values: mappings, lists, text, numbers, booleans, dates, None.
        lines: Line, from 1, of each value by its place.
    """

    value: Any
    lines: dict[Place, int]

    def describe(self, place: Place) -> str:
        """A place for a message, such as ``tasks[3].config.epochs (line 12)``."""
        text = ""
        for part in place:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
        return f"{text} (line {self.line(place)})" if place else "manifest"

    def line(self, place: Place) -> int:
        """The line of a place, or of its nearest parent; 0 if there is none."""
        ends = range(len(place), -1, -1)
        return next((self.lines[place[:end]] for end in ends if place[:end] in self.lines), 0)


def parse_yaml(content: bytes) -> YamlDocument:
    """Read one YAML document.

    Raises:
        ManifestError: The content is not valid or is refused; the message has the line.
    """
    try:
        _check_size(content)
        root = yaml.compose(content, Loader=_Loader)
        if root is None:
            return YamlDocument(value=None, lines={})
        lines: dict[Place, int] = {}
        problems = [*_visit(root, (), lines)]
        if problems:
            raise ManifestError(problems)
        # Constructed from the checked nodes; the text is not parsed again.
        return YamlDocument(value=_construct(root), lines=lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = ", ".join(text for text in (error.context, error.problem) if text)
        raise ManifestError(f"not valid YAML: {where}{what}") from error
    # Aliases in aliases can be deeper than the text.
    except RecursionError as error:
        raise ManifestError("not valid YAML: aliases nested too deep") from error
    # ValueError: text that looks like a date or a number, such as 2024-13-45.
    except (yaml.YAMLError, ValueError) as error:
        raise ManifestError(f"not valid YAML: {str(error).splitlines()[0]}") from error
    # PyYAML's own constructors, for text under a tag that it does not fit, such as `!!bool x`.
    except (AttributeError, IndexError, KeyError) as error:
        raise ManifestError("not valid YAML: a value does not fit the tag that stands before it") from error


@dataclass
class _Open:
    """An open collection, or the stream as a whole."""

    anchor: str | None = None
    num_values: int = 1


def _check_size(content: bytes) -> None:
    """Check depth and size by the parser's events, with aliases counted and not expanded."""
    size_by_anchor: dict[str, int] = {}
    stack = [_Open()]
    for event in yaml.parse(content, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Open(event.anchor))
        else:
            size = _close(event, stack, size_by_anchor)
            stack[-1].num_values += size
        if len(stack) > _MAX_DEPTH:
            raise ManifestError(f"line {_line(event)}: nested more than {_MAX_DEPTH} deep")
        if stack[-1].num_values > _MAX_VALUES:
            raise ManifestError(f"line {_line(event)}: more than {_MAX_VALUES} values, counting aliases")


def _close(event: yaml.Event, stack: list[_Open], size_by_anchor: dict[str, int]) -> int:
    """Number of values that end with this event."""
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in size_by_anchor:
            raise ManifestError(
                f"line {_line(event)}: alias *{event.anchor} has no anchor before it, or is inside of it"
            )
        return size_by_anchor[event.anchor]
    if isinstance(event, yaml.CollectionEndEvent):
        ended = stack.pop()
    elif isinstance(event, yaml.ScalarEvent):
        ended = _Open(event.anchor)
    else:
        return 0
    if ended.anchor:
        size_by_anchor[ended.anchor] = ended.num_values
    return ended.num_values


def _line(event: yaml.Event | yaml.Node) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _visit(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Iterator[str]:
    """Note each value's line; yield the problems of keys."""
    lines[place] = _line(node)
    if node.tag in _NOT_PLAIN:
        tag = node.tag.rpartition(":")[2]
        yield f"line {_line(node)}: expected a plain value, found one with the tag !!{tag}"
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _visit(child, (*place, index), lines)
    elif isinstance(node, yaml.MappingNode):
        first_line: dict[str, int] = {}
        for key, child in node.value:
            line = _line(key)
            if key.tag == _MERGE_TAG:
                continue
            if key.tag != "tag:yaml.org,2002:str":
                yield f"line {line}: expected text as a key, found {_shown(key)}; put it in quotes"
                continue
            if key.value in first_line:
                yield f"line {line}: key {key.value!r} is repeated, first in line {first_line[key.value]}"
            first_line.setdefault(key.value, line)
            yield from _visit(child, (*place, key.value), lines)
            lines[(*place, key.value)] = line


def _shown(key: yaml.Node) -> str:
    return repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"


def _construct(root: yaml.Node) -> Any:
    loader = _Loader(b"")
    try:
        return loader.construct_document(root)
    finally:
        loader.dispose()
