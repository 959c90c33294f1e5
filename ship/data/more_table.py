"""The table that ``DataSource.more`` names, picture by picture, with all that it says of each.

Where its pictures go into another table, no column of it may be lost: one of them may name groups.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from ship.data.fingerprint import digest_files
from ship.data.folder import Folder, open_folder, open_parent, read_small_file
from ship.data.items import Item
from ship.data.listing import open_more
from ship.data.table_items import MAX_TABLE_BYTES
from ship.data.tables import csv_rows

__all__ = ["FurtherImage", "read_more"]

_CSV_SUFFIXES = (".csv", ".tsv")
# All of the table are training images.
_OWN = ("path", "label", "split")


@dataclass(frozen=True, kw_only=True)
class FurtherImage:
    """A picture of the table.

    Attributes:
        path: Relative to the folder.
        folder: Where it lies.
        label: Name of its class.
        digest: sha256 of the file.
        columns: The other cells of a CSV file by column; of other tables the group, if there is one.
    """

    path: str
    folder: Folder
    label: str
    digest: str
    columns: Mapping[str, str] = field(default_factory=dict)


def read_more(path: str, group: str | None = None) -> tuple[FurtherImage, ...]:
    """The pictures of a table, sorted by path; none of a CSV file that has a header alone.

    Args:
        path: The table; local or any fsspec URL.
        group: Column of the groups.

    Raises:
        DataError: Lists every problem of the table, and every picture that cannot be read.
    """
    rows: list[dict[str, str]] | None = None
    if posixpath.splitext(path)[1].lower() in _CSV_SUFFIXES and not open_folder(path).is_folder():
        name = str(path)
        rows = list(csv_rows(read_small_file(path, max_bytes=MAX_TABLE_BYTES), name))
        if not rows:
            return ()
    folder, listing = open_more(path, group)
    digests = digest_files(folder, listing)
    cells = {} if rows is None else _cells_by_path(rows, folder, open_parent(path)[0])
    return tuple(
        FurtherImage(
            path=item.path,
            folder=folder,
            label=item.label,
            digest=digests[item.path],
            columns=_group_of(item, group) if rows is None else cells[item.path],
        )
        for item in listing.items
    )


def _cells_by_path(
    rows: list[dict[str, str]], images: Folder, parent: Folder
) -> dict[str | None, dict[str, str]]:
    """The cells of each row, by the path of its picture as the listing has it."""
    return {
        images.relative(row["path"], parent): {
            name: cell for name, cell in row.items() if name and name not in _OWN
        }
        for row in rows
    }


def _group_of(item: Item, group: str | None) -> dict[str, str]:
    return {} if group is None or item.group is None else {group: item.group}
