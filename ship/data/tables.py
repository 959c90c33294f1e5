"""Tables of images: CSV and Parquet files with the columns ``path``, ``label`` and, if wanted, ``split``."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ship.data.folder import Folder
from ship.data.items import SPLIT_OF_NAME, Item
from ship.errors import DataError

__all__ = ["list_csv", "list_parquet"]

_REQUIRED = ("path", "label")
# Place, cells by column, whether the row has more cells than there are columns.
_Row = tuple[str, Mapping[str, str], bool]


def list_csv(content: bytes, name: str, images: Folder, group: str | None = None) -> list[Item]:
    """Read a CSV file (UTF-8, commas, one header line); other columns are left out.

    Args:
        content: The file's bytes.
        name: The file's path, for messages.
        images: Folder that paths are relative to.
        group: Column of the groups; a name that is no column is left alone.

    Raises:
        DataError: Lists every problem with its line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: expected UTF-8 text: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = _check_columns(name, [column.strip() for column in reader.fieldnames or ()])
    except csv.Error as error:
        raise DataError(f"{name}: line 1: {error}") from error
    reader.fieldnames = columns
    return _to_items(_csv_rows(reader, name), columns, name, images, group)


def list_parquet(content: bytes, name: str, images: Folder, group: str | None = None) -> list[Item]:
    """Read a Parquet file; see ``list_csv``.

    Raises:
        DataError: Lists every problem with its row, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{name}: reading Parquet needs pyarrow; install it, or save the table as CSV"
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        columns = _check_columns(name, [str(column) for column in table.schema_arrow.names])
        wanted = [column for column in dict.fromkeys((*_REQUIRED, "split", group)) if column in columns]
        rows = table.read(columns=wanted).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name}: not a readable Parquet file: {error}") from error
    return _to_items(_parquet_rows(rows), columns, name, images, group)


def _check_columns(name: str, columns: list[str]) -> list[str]:
    problems = [f"{name}: column {column!r} is missing" for column in _REQUIRED if column not in columns]
    problems += [
        f"{name}: column {column!r} is there more than once"
        for column in (*_REQUIRED, "split")
        if columns.count(column) > 1
    ]
    if problems:
        found = ", ".join(map(repr, columns)) or "an empty file"
        raise DataError([*problems, f"{name}: expected the columns path,label[,split], found {found}"])
    return columns


def _csv_rows(reader: "csv.DictReader[str]", name: str) -> Iterator[_Row]:
    try:
        for row in reader:
            # DictReader keeps surplus cells under None, and fills missing ones with None.
            surplus = row.pop(None, None)
            cells = {key: (value or "").strip() for key, value in row.items()}
            yield f"line {reader.line_num}", cells, bool(surplus)
    except csv.Error as error:
        # DictReader's own count lags behind when a line fails.
        raise DataError(f"{name}: line {reader.reader.line_num}: {error}") from error


def _parquet_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[_Row]:
    for number, row in enumerate(rows, start=1):
        cells = {key: "" if cell is None else str(cell).strip() for key, cell in row.items()}
        yield f"row {number}", cells, False


def _to_items(
    rows: Iterable[_Row], columns: list[str], name: str, images: Folder, group: str | None
) -> list[Item]:
    items: list[Item] = []
    problems: list[str] = []
    first_place: dict[str, str] = {}
    has_split, has_group = "split" in columns, group in columns
    for place, row, is_too_long in rows:
        found = _row_problems(row, has_split)
        if has_group and not row[str(group)]:
            found.append(f"{group} is empty")
        if is_too_long:
            found.append("more cells than columns; put quotes around text with commas")
        path = images.relative(row["path"]) if row["path"] else None
        if row["path"] and path is None:
            found.append(f"path {row['path']!r} leads out of {images}; set image_root to a folder above it")
        if path is not None and path in first_place:
            found.append(f"path {path!r} was already in {first_place[path]}")
        problems += [f"{name}: {place}: {problem}" for problem in found]
        if path is not None and not found:
            first_place[path] = place
            split = SPLIT_OF_NAME[row["split"]] if has_split else "train"
            items.append(Item(path, row["label"], split, row[str(group)] if has_group else None))
    if not items and not problems:
        problems.append(f"{name}: no rows")
    if problems:
        raise DataError(problems)
    return items


def _row_problems(row: Mapping[str, str], has_split: bool) -> list[str]:
    names = (*_REQUIRED, "split") if has_split else _REQUIRED
    problems = [f"{column} is empty" for column in names if not row[column]]
    if has_split and row["split"] and row["split"] not in SPLIT_OF_NAME:
        problems.append(f"split: expected one of {', '.join(SPLIT_OF_NAME)}, got {row['split']!r}")
    return problems
