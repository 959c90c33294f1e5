"""Rows of a table as images with classes: checked one by one, every problem with its place."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ship.data.folder import Folder
from ship.data.items import SPLIT_SPELLINGS, Item, as_label, find_split
from ship.errors import DataError

__all__ = ["MAX_ROWS", "MAX_TABLE_BYTES", "REQUIRED", "Row", "TablePlace", "to_items", "wanted_columns"]

# A table of the largest public sets has a million rows and a tenth of these bytes. A file of kilobytes can
# claim far more, so that nothing is unpacked or kept beyond these.
MAX_TABLE_BYTES = 128 << 20
MAX_ROWS = 2_000_000
MAX_PROBLEMS = 1000
REQUIRED = ("path", "label")

_WHOLE = re.compile(r"-?[0-9]{1,18}")
# What programs write for a missing number, and numbers that were read as fractions.
_NO_NUMBER = re.compile(
    r"nan|none|null|n/a|na|<na>|inf|-?[0-9]+\.[0-9]*|-?[0-9.]+e[+-]?[0-9]+", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        place: Its place, such as ``line 7``.
        cells: Text by column.
        problems: Problems that its reader has found.
    """

    place: str
    cells: Mapping[str, str]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TablePlace:
    """A table, and where its images are.

    Attributes:
        name: Path of the table, for messages.
        images: Folder that paths are relative to.
        folder: Folder of the table, which paths that begin with ``..`` are relative to; None for the other.
        group: Column of the groups; a name that is no column is left alone.
        may_lack_groups: Whether a row may have no group; else that is a problem.
        below: Part of every path that the table leaves out.
        split: Split of all rows; None where a column tells it.
    """

    name: str
    images: Folder
    folder: Folder | None = None
    group: str | None = None
    may_lack_groups: bool = False
    below: str = ""
    split: str | None = None

    def resolve(self, path: str) -> str | None:
        """A cell's path relative to ``images``; None if it leads out."""
        if self.below and not path.startswith("/") and "://" not in path:
            path = str(PurePosixPath(self.below) / path)
        return self.images.relative(path, self.folder)

    def advise(self, path: str) -> str:
        """What to do about a path that leads out."""
        return f"set image_root to {(self.folder or self.images).root_above(path)}"


def wanted_columns(columns: list[str], group: str | None) -> list[str]:
    """The columns that are read."""
    return [column for column in dict.fromkeys((*REQUIRED, "split", group)) if column in columns]


def to_items(rows: Iterable[Row], columns: list[str], table: TablePlace) -> list[Item]:
    """The images of a table.

    Raises:
        DataError: Lists every problem with its place.
    """
    items: list[Item] = []
    problems: list[str] = []
    first_place: dict[str, str] = {}
    place_of_label: dict[str, str] = {}
    # One object for each name, which a row of kilobytes may repeat.
    names: dict[str, str] = {}
    for row in _bounded(rows, table.name):
        path = table.resolve(row.cells["path"]) if row.cells.get("path") else None
        found = [*_cell_problems(row, columns, table), *row.problems]
        if row.cells.get("path") and path is None:
            given = row.cells["path"]
            found.append(f"path {given!r}: leads out of {table.images}; {table.advise(given)}")
        if path is not None and path in first_place:
            found.append(f"path {path!r} was already in {first_place[path]}")
        problems += [f"{table.name}: {row.place}: {problem}" for problem in found]
        if len(problems) >= MAX_PROBLEMS:
            raise DataError([*problems, f"{table.name}: the rest of the table was not read"])
        if path is not None and not found:
            first_place[path] = row.place
            item = _to_item(row, path, columns, table, names)
            place_of_label.setdefault(item.label, row.place)
            items.append(item)
    problems += _no_numbers(items, place_of_label, table.name)
    if not items and not problems:
        problems.append(f"{table.name}: no rows")
    if problems:
        raise DataError(problems)
    return items


def _to_item(row: Row, path: str, columns: list[str], table: TablePlace, names: dict[str, str]) -> Item:
    label = as_label(row.cells["label"])
    kept = row.cells.get(str(table.group)) or None if table.group in columns else None
    split = find_split(table.split or (row.cells["split"] if "split" in columns else "train"))
    assert split is not None, "checked with the row"
    return Item(
        path, names.setdefault(label, label), split, None if kept is None else names.setdefault(kept, kept)
    )


def _bounded(rows: Iterable[Row], name: str) -> Iterator[Row]:
    num_chars = 0
    for number, row in enumerate(rows, start=1):
        num_chars += sum(map(len, row.cells.values()))
        if number > MAX_ROWS or num_chars > MAX_TABLE_BYTES:
            most = f"{MAX_ROWS} rows and {MAX_TABLE_BYTES} characters"
            raise DataError(f"{name}: {row.place}: expected at most {most}; split the table")
        yield row


def _cell_problems(row: Row, columns: list[str], table: TablePlace) -> list[str]:
    if not row.cells:
        # Its reader has said what is wrong with it.
        return []
    has_split = "split" in columns and table.split is None
    names = (*REQUIRED, "split") if has_split else REQUIRED
    told = " ".join(row.problems)
    problems = [f"{name} is empty" for name in names if not row.cells.get(name) and f"{name}:" not in told]
    split = row.cells.get("split", "")
    if has_split and split and find_split(split) is None:
        spellings = ", ".join(", ".join(all_) for all_ in SPLIT_SPELLINGS.values())
        problems.append(f"split: expected one of {spellings}, got {split!r}")
    if table.group in columns and not table.may_lack_groups and not row.cells.get(str(table.group)):
        problems.append(f"{table.group} is empty")
    return problems


def _no_numbers(items: list[Item], place_of_label: Mapping[str, str], name: str) -> list[str]:
    """A problem for each label that is no number where the others are."""
    counts = Counter(item.label for item in items)
    odd = [label for label in counts if _WHOLE.fullmatch(label) is None]
    if len(odd) == len(counts) or not all(_NO_NUMBER.fullmatch(label) for label in odd):
        return []
    return [
        f"{name}: {place_of_label[label]}: label: expected a whole number as in the other rows, got "
        f"{label!r} ({counts[label]} rows)"
        for label in odd
    ]
