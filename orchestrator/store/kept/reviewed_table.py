"""The table of reviewed pictures that a manifest takes as ``data.more``: its rows, and how it is written.

``labels.csv`` has the columns ``path,label`` of a table of images, who said so and when, and whatever other
column an earlier table had. Pictures are beside it: new ones in ``pictures/``, named by their sha256, and
those of earlier tables by the paths that they had there, since a path may tell a group.

What holds of it, so that no label is lost when the store drops a picture (after 30 days, by default):

- A picture is what its file holds, and has one row, whatever its path.
- A row of an earlier table stays, until the store says something else of the picture, or the data themselves,
  without ``more``, have it.
- While the store has a review of a picture, that review decides: its label, if one is settled, takes the
  place of the table's; if none is (it was taken back, left out, or persons differ since) the row goes.
- Where the store has none (it dropped the picture, or never had it), the row that was reviewed last counts.
  So what was taken back, and then dropped, stays out of tables that follow the one that left it out, and is
  in again only where one of before is named.
- The table is replaced whole, after all its pictures are there. No picture is removed or written over.
"""

import csv
import hashlib
import io
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from orchestrator.store.documents.review import Review
from orchestrator.store.kept.picture_files import Exported, fetch_picture, name_picture, write_whole
from orchestrator.store.kept.pictures import KeptPictures
from orchestrator.store.kept.reviews import Reviewed
from ship.data.more_table import FurtherImage

__all__ = ["BY", "CSV", "TASK", "ReviewedTable", "Row", "labels_of", "merge_rows", "write_table"]

CSV = "labels.csv"
BY, VERSION, AT, TASK = "reviewed_by", "answered_by_version", "reviewed_at", "ship_task"
_COLUMNS = ("path", "label", BY, VERSION, AT, TASK)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A picture with its label.

    Attributes:
        picture: sha256 of the file.
        label: The label.
        columns: Other cells by column.
        image: Where an earlier table has it; None for a new one, which is in the store.
    """

    picture: str
    label: str
    columns: Mapping[str, str] = field(default_factory=dict)
    image: FurtherImage | None = None

    @property
    def reviewed_at(self) -> str:
        """When its last review was, so that the later one sorts last; empty where the table does not say."""
        try:
            return time.strftime(_TIME, time.strptime(self.columns.get(AT, ""), _TIME))
        except ValueError:
            return ""


@dataclass(frozen=True, kw_only=True)
class ReviewedTable:
    """What is to be written.

    Attributes:
        rows: One for each picture, sorted by it.
        num_known: Pictures that were left out as the data have them already.
        num_taken_back: Pictures of earlier tables that were left out, as their label is settled no longer.
    """

    rows: tuple[Row, ...]
    num_known: int = 0
    num_taken_back: int = 0


def labels_of(rows: Iterable[Row]) -> dict[str, str]:
    """Label by picture."""
    return {row.picture: row.label for row in rows}


def merge_rows(
    reviewed: Iterable[Reviewed],
    earlier: Sequence[Row] = (),
    reviews: Mapping[str, Review] | None = None,
    known: Collection[str] = (),
) -> ReviewedTable:
    """The rows of a new table; the module says what holds of them.

    Args:
        reviewed: Kept pictures with their reviews.
        earlier: Rows of earlier tables; of two that were reviewed at the same time, the first one counts.
        reviews: Reviews of their pictures that the store has, by picture.
        known: sha256 of files that the data themselves have, of any split.
    """
    settled = {one.kept.picture: one for one in reviewed if one.review.label is not None}
    before = _last_reviewed(earlier)
    rows, num_known, num_taken_back = [], 0, 0
    for picture in sorted({*settled, *before}):
        row, now = before.get(picture), settled.get(picture)
        review = (reviews or {}).get(picture) or (now.review if now else None)
        if picture in known:
            num_known += 1
        elif review is None:
            assert row is not None, "what is not settled is of an earlier table"
            rows.append(row)
        elif review.label is None:
            num_taken_back += 1
        else:
            told = _columns_of(review) | ({VERSION: str(now.kept.version)} if now else {})
            row = row or Row(picture=picture, label="")
            rows.append(replace(row, label=review.label, columns={**row.columns, **told}))
    return ReviewedTable(rows=tuple(rows), num_known=num_known, num_taken_back=num_taken_back)


def write_table(kept: KeptPictures, task: str, table: ReviewedTable, folder: Path) -> Exported:
    """Write the pictures that the folder lacks, and then the table, in place of the one that is there.

    Args:
        kept: Gives new pictures; one that is gone meanwhile has no row.
        task: Name of the task.
        table: The rows.
        folder: Where they are written; it may be there.

    Raises:
        DataError: A picture of an earlier table cannot be read.
        StoreError: A picture cannot be read.
        OSError: The folder cannot be written.
    """
    paths: dict[str, Row] = {}
    # Those that have a path first, so that they keep it.
    for row in sorted(table.rows, key=lambda row: row.image is None):
        if (path := _place_picture(kept, task, row, folder, paths)) is not None:
            paths[path] = row
    columns = dict.fromkeys([*_COLUMNS, *(name for row in paths.values() for name in row.columns)])
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for path, row in sorted(paths.items(), key=lambda pair: pair[1].picture):
        writer.writerow({**row.columns, "path": path, "label": row.label, TASK: task})
    write_whole(folder / CSV, content.getvalue().encode())
    return Exported(
        path=folder / CSV,
        num_pictures=len(paths),
        num_known=table.num_known,
        num_earlier=sum(row.image is not None for row in paths.values()),
        num_taken_back=table.num_taken_back,
    )


def _last_reviewed(rows: Iterable[Row]) -> dict[str, Row]:
    """Of each picture the row that was reviewed last, with cells of the others where it has none."""
    found: dict[str, Row] = {}
    for row in rows:
        first = found.setdefault(row.picture, row)
        if first is not row:
            last, other = (row, first) if row.reviewed_at > first.reviewed_at else (first, row)
            told = {name: cell for name, cell in last.columns.items() if cell}
            found[row.picture] = replace(last, columns={**other.columns, **told})
    return found


def _columns_of(review: Review) -> dict[str, str]:
    said = review.opinions
    return {
        BY: "; ".join(dict.fromkeys(opinion.by for opinion in said)),
        AT: time.strftime(_TIME, time.gmtime(max(opinion.time_s for opinion in said))),
    }


def _place_picture(
    kept: KeptPictures, task: str, row: Row, folder: Path, taken: Collection[str]
) -> str | None:
    """See that the folder has the picture of a row; its path there, or None if it is gone meanwhile."""
    content = None
    if row.image is not None:
        path = row.image.path
    elif (content := fetch_picture(kept, task, row.picture)) is not None:
        path = name_picture(row.picture, content)
    else:
        return None
    if path in taken or _digest(folder / path) not in (None, row.picture):
        # Another picture has the name.
        path = str(PurePosixPath(path).with_stem(f"{PurePosixPath(path).stem}-{row.picture[:12]}"))
    if _digest(folder / path) != row.picture:
        if row.image is not None:
            content = row.image.folder.read(row.image.path)
        assert content is not None
        write_whole(folder / path, content)
    return path


def _digest(path: Path) -> str | None:
    """sha256 of a file; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
