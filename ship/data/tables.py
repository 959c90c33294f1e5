"""Tables of images: CSV and Parquet files with the columns ``path``, ``label`` and, if wanted, ``split``."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ship.data.folder import Folder
from ship.data.items import SPLIT_OF_NAME, Item
from ship.errors import DataError

__all__ = ["MAX_TABLE_BYTES", "list_csv", "list_parquet"]

# A table of the largest public sets has a million rows and a tenth of these bytes. A file of kilobytes can
# claim far more, so that nothing is unpacked or kept beyond these.
MAX_TABLE_BYTES = 128 << 20
MAX_ROWS = 2_000_000
MAX_COLUMNS = 1000
MAX_CELL_BYTES = 4096
MAX_LINE_CHARS = 1 << 20
MAX_PROBLEMS = 1000
_ROWS_AT_ONCE = 10_000

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
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True)
    try:
        columns = _check_columns(name, [column.strip() for column in next(reader, [])])
    except csv.Error as error:
        raise DataError(f"{name}: line {lines.number}: {error}") from error
    return _to_items(_csv_rows(reader, lines, columns, name, group), columns, name, images, group)


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
        wanted = _wanted(columns, group)
        _check_parquet(table, wanted, name)
        # Each different text once, however many rows repeat it.
        table = pyarrow.parquet.ParquetFile(io.BytesIO(content), read_dictionary=wanted)
        return _to_items(_parquet_rows(table, wanted, name), columns, name, images, group)
    # A cell that is no UTF-8 is a ValueError.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{name}: not a readable Parquet file: {error}") from error


def _wanted(columns: list[str], group: str | None) -> list[str]:
    return [column for column in dict.fromkeys((*_REQUIRED, "split", group)) if column in columns]


def _check_parquet(table: Any, wanted: list[str], name: str) -> None:
    """Check by the file's own account what it would become, before anything of it is unpacked."""
    import pyarrow

    facts, kinds = table.metadata, pyarrow.types
    problems = []
    if facts.num_rows > MAX_ROWS:
        problems.append(f"{name}: expected at most {MAX_ROWS} rows, found {facts.num_rows}")
    for column in wanted:
        kind = table.schema_arrow.field(column).type
        if kinds.is_nested(kind):
            problems.append(f"{name}: column {column!r}: expected text or numbers, found {kind}")
    groups = [facts.row_group(number) for number in range(min(facts.num_row_groups, MAX_ROWS))]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    num_bytes = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in wanted)
    if num_bytes > MAX_TABLE_BYTES:
        found = f"{num_bytes} bytes in {', '.join(wanted)} once unpacked"
        problems.append(f"{name}: expected at most {MAX_TABLE_BYTES}, found {found}")
    if problems:
        raise DataError(problems)


def _check_columns(name: str, columns: list[str]) -> list[str]:
    if len(columns) > MAX_COLUMNS:
        raise DataError(f"{name}: expected at most {MAX_COLUMNS} columns, found {len(columns)}")
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


class _Lines:
    """Lines of a CSV file, which end with a row that is too long: a row may go over many lines."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self._num_chars = 0
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._num_chars += len(line)
        self.number += 1
        if self._num_chars > MAX_LINE_CHARS:
            raise csv.Error(f"expected at most {MAX_LINE_CHARS} characters a row")
        return line

    def end_row(self) -> None:
        """Begin to count anew."""
        self._num_chars = 0


def _csv_rows(reader: Any, lines: _Lines, columns: list[str], name: str, group: str | None) -> Iterator[_Row]:
    place_of = {column: place for place, column in enumerate(columns)}
    wanted = [(column, place_of[column]) for column in _wanted(columns, group)]
    lines.end_row()
    try:
        for row in reader:
            lines.end_row()
            if row:
                cells = {column: row[at].strip() if at < len(row) else "" for column, at in wanted}
                yield f"line {reader.line_num}", cells, len(row) > len(columns)
    except csv.Error as error:
        raise DataError(f"{name}: line {lines.number}: {error}") from error


def _parquet_rows(table: Any, wanted: list[str], name: str) -> Iterator[_Row]:
    import pyarrow.compute

    number = 0
    for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
        for column in batch.columns:
            texts = getattr(column, "dictionary", column)
            if pyarrow.types.is_string(texts.type) or pyarrow.types.is_large_string(texts.type):
                longest = pyarrow.compute.max(pyarrow.compute.binary_length(texts)).as_py() or 0
                if longest > MAX_CELL_BYTES:
                    raise DataError(
                        f"{name}: expected at most {MAX_CELL_BYTES} bytes a cell, found {longest} in one of "
                        f"the rows from {number + 1}"
                    )
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", {key: _text_of(cell) for key, cell in row.items()}, False


def _text_of(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _to_items(
    rows: Iterable[_Row], columns: list[str], name: str, images: Folder, group: str | None
) -> list[Item]:
    items: list[Item] = []
    problems: list[str] = []
    first_place: dict[str, str] = {}
    # One object for each name, which a row of kilobytes may repeat.
    names: dict[str, str] = {}
    has_split, has_group = "split" in columns, group in columns
    for place, row, is_too_long in _bounded(rows, name):
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
        if len(problems) >= MAX_PROBLEMS:
            raise DataError([*problems, f"{name}: the rest of the table was not read"])
        if path is not None and not found:
            first_place[path] = place
            split = SPLIT_OF_NAME[row["split"]] if has_split else "train"
            label, kept = row["label"], row[str(group)] if has_group else None
            label = names.setdefault(label, label)
            items.append(Item(path, label, split, None if kept is None else names.setdefault(kept, kept)))
    if not items and not problems:
        problems.append(f"{name}: no rows")
    if problems:
        raise DataError(problems)
    return items


def _bounded(rows: Iterable[_Row], name: str) -> Iterator[_Row]:
    num_chars = 0
    for number, row in enumerate(rows, start=1):
        num_chars += sum(map(len, row[1].values()))
        if number > MAX_ROWS or num_chars > MAX_TABLE_BYTES:
            most = f"{MAX_ROWS} rows and {MAX_TABLE_BYTES} characters"
            raise DataError(f"{name}: {row[0]}: expected at most {most}; split the table")
        yield row


def _row_problems(row: Mapping[str, str], has_split: bool) -> list[str]:
    names = (*_REQUIRED, "split") if has_split else _REQUIRED
    problems = [f"{column} is empty" for column in names if not row[column]]
    if has_split and row["split"] and row["split"] not in SPLIT_OF_NAME:
        problems.append(f"split: expected one of {', '.join(SPLIT_OF_NAME)}, got {row['split']!r}")
    return problems
