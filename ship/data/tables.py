"""Tables of images: CSV and Parquet files with the columns ``path``, ``label`` and, if wanted, ``split``."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ship.data.items import Item
from ship.data.table_items import (
    MAX_ROWS,
    MAX_TABLE_BYTES,
    REQUIRED,
    Row,
    TablePlace,
    to_items,
    wanted_columns,
)
from ship.errors import DataError

__all__ = ["csv_columns", "csv_rows", "list_csv", "list_parquet", "typed_row"]

MAX_COLUMNS = 1000
MAX_CELL_BYTES = 4096
MAX_LINE_CHARS = 1 << 20
_ROWS_AT_ONCE = 10_000
# Usual spellings of the columns.
_NAME_OF = {"path": "path", "file_name": "path", "label": "label", "split": "split"}


def list_csv(content: bytes, table: TablePlace) -> list[Item]:
    """Read a CSV file: UTF-8, one header line, commas, semicolons or tabs; other columns are left out.

    Args:
        content: The file's bytes.
        table: Where it and its images are.

    Raises:
        DataError: Lists every problem with its line.
    """
    reader, lines, columns = _open_csv(content, table.name)
    rows = _csv_rows(reader, lines, columns, wanted_columns(columns, table.group), table.name)
    return to_items(rows, columns, table)


def csv_rows(content: bytes, name: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with all its columns, as ``list_csv`` calls them; what they say is not checked.

    Args:
        content: The file's bytes.
        name: Its path, for messages.

    Raises:
        DataError: It is no CSV file with the columns that are needed.
    """
    reader, lines, columns = _open_csv(content, name)
    for row in _csv_rows(reader, lines, columns, columns, name):
        yield dict(row.cells)


def csv_columns(content: bytes, name: str) -> list[str]:
    """Names of a CSV file's columns, as ``list_csv`` calls them; none if it is no such file."""
    try:
        lines = _Lines(_decode(content, name))
        return _known_names(next(csv.reader(lines, delimiter=_find_delimiter(lines.text)), []))
    except (csv.Error, DataError):
        return []


def list_parquet(content: bytes, table: TablePlace) -> list[Item]:
    """Read a Parquet file; see ``list_csv``.

    Raises:
        DataError: Lists every problem with its row, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{table.name}: reading Parquet needs pyarrow; install it, or save the table as CSV"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        stored = [str(column) for column in file.schema_arrow.names]
        columns = _check_columns(table.name, stored)
        wanted = wanted_columns(columns, table.group)
        name_of = {stored[columns.index(column)]: column for column in wanted}
        _check_parquet(file, list(name_of), table.name)
        # Each different text once, however many rows repeat it.
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content), read_dictionary=list(name_of))
        return to_items(_parquet_rows(file, name_of, table.name), columns, table)
    # A cell that is no UTF-8 is a ValueError.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{table.name}: not a readable Parquet file: {error}") from error


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


def _decode(content: bytes, name: str) -> str:
    # Spreadsheets save "Unicode text" as UTF-16 with its mark.
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: expected UTF-8 text: {error}") from error


def _find_delimiter(text: str) -> str:
    """The delimiter under which the header has the columns that are needed; a comma if none does."""
    # Spreadsheets for the Macintosh end lines with CR alone.
    header = re.split(r"[\r\n]", text[:MAX_LINE_CHARS], maxsplit=1)[0]
    for delimiter in ",;\t|":
        names = _known_names(next(csv.reader([header], delimiter=delimiter), []))
        if set(REQUIRED) <= set(names):
            return delimiter
    return ","


def _known_names(columns: list[str]) -> list[str]:
    """Column names, with ours for their usual spellings: ``file_name`` is that of Hugging Face."""
    stripped = [column.strip() for column in columns]
    named = [_NAME_OF.get(column.casefold(), column) for column in stripped]
    # A column that has the very name is the one that is meant.
    return [
        given if given != name and name in stripped else name
        for given, name in zip(stripped, named, strict=True)
    ]


def _check_columns(name: str, found: list[str]) -> list[str]:
    columns = _known_names(found)
    if len(columns) > MAX_COLUMNS:
        raise DataError(f"{name}: expected at most {MAX_COLUMNS} columns, found {len(columns)}")
    problems = [f"{name}: column {column!r} is missing" for column in REQUIRED if column not in columns]
    problems += [
        f"{name}: column {column!r} is there more than once"
        for column in (*REQUIRED, "split")
        if columns.count(column) > 1
    ]
    if problems:
        listed = ", ".join(map(repr, found)) or "an empty file"
        raise DataError([*problems, f"{name}: expected the columns path,label[,split], found {listed}"])
    return columns


class _Lines:
    """Lines of a CSV file, which end with a row that is too long: a row may go over many lines."""

    def __init__(self, text: str) -> None:
        self.text = text
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


def _open_csv(content: bytes, name: str) -> tuple[Any, _Lines, list[str]]:
    """A reader that is behind the header, the lines that it reads, and the names of the columns."""
    lines = _Lines(_decode(content, name))
    try:
        reader = csv.reader(lines, strict=True, delimiter=_find_delimiter(lines.text))
        return reader, lines, _check_columns(name, next(reader, []))
    except csv.Error as error:
        raise DataError(f"{name}: line {lines.number}: {error}") from error


def _csv_rows(
    reader: Any, lines: _Lines, columns: list[str], wanted_names: list[str], name: str
) -> Iterator[Row]:
    wanted = [(column, columns.index(column)) for column in wanted_names]
    lines.end_row()
    try:
        for row in reader:
            lines.end_row()
            if row:
                cells = {column: row[at].strip() if at < len(row) else "" for column, at in wanted}
                too_long = ("more cells than columns; put quotes around text with commas",)
                yield Row(
                    place=f"line {reader.line_num}",
                    cells=cells,
                    problems=too_long if len(row) > len(columns) else (),
                )
    except csv.Error as error:
        raise DataError(f"{name}: line {lines.number}: {error}") from error


def _parquet_rows(file: Any, name_of: Mapping[str, str], name: str) -> Iterator[Row]:
    import pyarrow.compute

    number = 0
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(name_of)):
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
            yield typed_row(f"row {number}", {name_of[key]: cell for key, cell in row.items()})


def typed_row(place: str, values: Mapping[str, object]) -> Row:
    """A row of values with types: text and whole numbers are labels, and nothing else is."""
    cells, problems = {}, []
    for name, value in values.items():
        if value is None or isinstance(value, (str, bool, int)):
            cells[name] = "" if value is None else str(value).strip()
        else:
            cells[name] = ""
            problems.append(
                f"{name}: expected text or a whole number, got {str(value)[:80]!r} ({type(value).__name__})"
            )
    return Row(place=place, cells=cells, problems=tuple(problems))
