"""Tables of images as JSON lines: Hugging Face's ``metadata.jsonl``, and manifests of Lookout for Vision.

A line has ``file_name`` (or ``path``), ``label`` and, if wanted, ``split``; or, as Lookout for Vision and
Ground Truth write it, ``source-ref`` and an attribute whose ``-metadata`` has a ``class-name``. A column that
some lines have is one of the table: a line that lacks it has an empty cell.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ship.data.items import Item
from ship.data.table_items import MAX_ROWS, REQUIRED, Row, TablePlace, to_items
from ship.data.tables import typed_row
from ship.errors import DataError

__all__ = ["json_columns", "list_jsonl", "manifest_paths"]

MAX_LINE_BYTES = 1 << 20
_SOURCE, _METADATA, _CLASS = "source-ref", "-metadata", "class-name"


def list_jsonl(content: bytes, table: TablePlace) -> list[Item]:
    """Read JSON lines; see ``list_csv``.

    Raises:
        DataError: Lists every problem with its line.
    """
    columns = json_columns(content, table.group)
    if not set(REQUIRED) <= set(columns):
        first = _parse(next((line for _, line in _lines(content)), b""))
        found = ", ".join(map(repr, sorted(first))) if isinstance(first, dict) else ""
        found = found or "an empty file"
        raise DataError(
            f"{table.name}: expected lines with file_name (or path) and label, or with source-ref and a "
            f"class-name, found {found}"
        )
    return to_items(_rows(content, columns), columns, table)


def json_columns(content: bytes, group: str | None = None) -> list[str]:
    """The columns that are read, of those that any line has: writers leave out what is empty or the default.

    Args:
        content: The file's bytes.
        group: Column of the groups.
    """
    wanted = [name for name in dict.fromkeys((*REQUIRED, "split", group)) if name]
    missing = set(wanted)
    # A table with more rows is refused.
    for _, line in islice(_lines(content), MAX_ROWS):
        values = _parse(line)
        missing -= values.keys() if isinstance(values, dict) else set()
        if not missing:
            break
    return [name for name in wanted if name not in missing]


def manifest_paths(content: bytes) -> list[str]:
    """The paths of a manifest of Lookout for Vision, if it is one and all of them are URLs."""
    first = next((line for _, line in _lines(content)), b"")
    if f'"{_SOURCE}"'.encode() not in first:
        return []
    values = [_parse(line) for _, line in _lines(content)]
    paths = [str(found.get("path", "")) for found in values if isinstance(found, dict)]
    return paths if all("://" in path for path in paths) else []


def _rows(content: bytes, columns: list[str]) -> Iterator[Row]:
    for number, line in _lines(content):
        values = _parse(line)
        place = f"line {number}"
        if isinstance(values, str):
            yield Row(place=place, cells={}, problems=(values,))
        else:
            yield typed_row(place, {column: values.get(column) for column in columns})


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    start, number = 0, 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        number += 1
        if line := content[start:end].strip():
            yield number, line
        start = end + 1


def _parse(line: bytes) -> dict[str, Any] | str:
    """The columns of a line by our names, or what is wrong with it."""
    if len(line) > MAX_LINE_BYTES:
        return f"expected at most {MAX_LINE_BYTES} bytes a line, found {len(line)}"
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"expected a JSON object: {error}"
    if not isinstance(values, dict):
        return f"expected a JSON object, found {type(values).__name__}"
    if _SOURCE in values:
        return _from_manifest(values)
    renamed = {"path": values["file_name"]} if "file_name" in values and "path" not in values else {}
    return {**values, **renamed}


def _from_manifest(values: Mapping[str, Any]) -> dict[str, Any] | str:
    told = {
        name: details[_CLASS]
        for name, details in values.items()
        if name.endswith(_METADATA) and isinstance(details, dict) and _CLASS in details
    }
    if len(set(map(str, told.values()))) != 1:
        found = ", ".join(sorted(told)) or "none"
        return f"expected one attribute with a {_CLASS}, found {found}"
    return {"path": values[_SOURCE], "label": next(iter(told.values()))}
