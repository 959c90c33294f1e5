"""From a source to its listing: find the format, list the images, cut splits, check the whole."""

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ship.data.folder import Folder, open_folder, open_parent, read_small_file
from ship.data.folder_tree import FolderTree
from ship.data.grouping import divided_groups, find_groups, name_groups
from ship.data.imagefolder import list_imagefolder, pass_over_rest
from ship.data.inspection_sets import find_visa, is_mvtec, list_mvtec, list_visa
from ship.data.items import Item, Listing, SplitName, find_split, sort_labels
from ship.data.json_lines import json_columns, list_jsonl, manifest_paths
from ship.data.passed_over import PassedOver, merge_passed_over
from ship.data.paths import common_parent
from ship.data.source import DataFormat, DataSource
from ship.data.splitting import cut_splits
from ship.data.table_items import MAX_TABLE_BYTES, REQUIRED, TablePlace
from ship.data.tables import csv_columns, list_csv, list_parquet
from ship.data.vtab import is_vtab, list_vtab
from ship.errors import DataError

__all__ = [
    "TABLE_FORMATS",
    "TABLE_SUFFIXES",
    "list_items",
    "open_images",
    "open_labelled",
    "open_listing",
    "open_more",
    "open_own",
]

_TABLE_FORMATS: dict[str, DataFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".manifest": "jsonl",
}
TABLE_SUFFIXES, TABLE_FORMATS = tuple(_TABLE_FORMATS), tuple(dict.fromkeys(_TABLE_FORMATS.values()))
_READERS = {"csv": list_csv, "parquet": list_parquet, "jsonl": list_jsonl}
# The tables that Hugging Face's `imagefolder` reads.
_METADATA: dict[str, DataFormat] = {"metadata.csv": "csv", "metadata.jsonl": "jsonl"}
# Where the images of `more` seem to lie.
_MORE = "more"
_WHOLE = re.compile(r"\+?(-?)0*([0-9]+)")
# Letters of other scripts that look like these.
_LOOKALIKES = str.maketrans(
    "аАвВеЕкКМНоОрРсСТуУхХіІјЈѕЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "aAbBeEkKMHoOpPcCTyYxXiIjJsSABEZHIKMNOPTYXo"
)


def list_items(source: DataSource) -> Listing:
    """Classes, images and splits of a data set, without reading an image.

    Raises:
        DataError: Lists every problem of its layout.
    """
    return open_listing(source)[1]


def open_listing(source: DataSource) -> tuple[Folder, Listing]:
    """The listing, and the folder that its paths are relative to.

    Raises:
        DataError: Lists every problem of its layout.
    """
    folder, listing = _open(source)
    if problems := _problems(source, listing):
        raise DataError(problems)
    return folder, listing


def open_images(source: DataSource) -> Folder:
    """The folder that the paths of a data set are relative to, whatever is wrong with its classes or splits.

    Raises:
        DataError: There is no such data, or its listing cannot be read.
    """
    return _open(source)[0]


def open_labelled(
    source: DataSource, labels: Sequence[str], split: SplitName | None = None
) -> tuple[Folder, Listing]:
    """A listing of images to measure a task's answers on, and the folder that its paths are relative to.

    Args:
        source: The data set; it needs no training images, and not all classes.
        labels: Class names of the task, which the listing has.
        split: Split to take; None for all images.

    Raises:
        DataError: Lists every problem of its layout, and every class that is none of the task's.
    """
    folder, listing = _open(source)
    items = listing.items if split is None else listing.of_split(split)
    problems = _name_problems(source, listing)
    if not items:
        problems.append(f"{source.path}: no image{'' if split is None else f' in split {split!r}'}")
    if unknown := sorted({item.label for item in items} - set(labels)):
        problems.append(
            f"{source.path}: the task has no class {', '.join(map(repr, unknown))[:300]}; it has "
            f"{', '.join(map(repr, labels))[:300]}"
        )
    if problems:
        raise DataError(problems)
    return folder, Listing(format=listing.format, labels=tuple(labels), items=items)


def _open(source: DataSource) -> tuple[Folder, Listing]:
    """The listing of any labelled images, with those of ``more``."""
    folder, listing = open_own(source)
    if source.more is None:
        return folder, listing
    return folder, _with_more(source.more, source.group, folder, listing)


def _with_more(path: str, group: str | None, folder: Folder, listing: Listing) -> Listing:
    """A listing with the images of a table for training; its held-out images stay what they are."""
    other, more = open_more(path, group)
    folder.graft(_MORE, other, [item.path for item in more.items])
    found = more.items if group is None else find_groups(more.items, group)
    grafted = [replace(item, path=f"{_MORE}/{item.path}") for item in found]
    if group is not None:
        # One without a group is a group of its own, so that those of all others are kept.
        grafted = [item if item.group else replace(item, group=item.path) for item in grafted]
    items = sorted([*listing.items, *grafted], key=lambda item: item.path)
    if len({item.path for item in items}) < len(items):
        raise DataError(f"{folder}: a folder {_MORE!r} is there already; rename it")
    new = {item.label for item in grafted} - set(listing.labels)
    labels = sort_labels([*listing.labels, *new]) if new else listing.labels
    return replace(listing, labels=labels, items=tuple(items))


def open_more(path: str, group: str | None = None) -> tuple[Folder, Listing]:
    """The listing of further training images, and the folder that its paths are relative to.

    Args:
        path: The table, as ``DataSource.more`` names it.
        group: Column of groups that it may have.

    Raises:
        DataError: Lists every problem of the table, or it has images of another split.
    """
    folder, listing = open_own(DataSource(path=path, test_fraction=0.0), group)
    if held_out := [item.path for item in listing.items if item.split != "train"]:
        raise DataError(f"{path}: more: expected training images, found {held_out[0]!r} of another split")
    return folder, listing


def open_own(source: DataSource, wanted_group: str | None = None) -> tuple[Folder, Listing]:
    """The listing of the data themselves, without those of ``more``, whatever is wrong with its classes.

    Args:
        source: The data set.
        wanted_group: Column of groups that a table may have; ``source.group`` has to be there.

    Raises:
        DataError: There is no such data, or its listing cannot be read.
    """
    folder = open_folder(source.path)
    if folder.is_folder():
        return folder, _list_folder(source, folder, wanted_group)
    extension = posixpath.splitext(source.path)[1].lower()
    format_ = _TABLE_FORMATS.get(extension) if source.format == "auto" else source.format
    if format_ not in _READERS:
        raise DataError(
            f"{source.path}: no such folder; expected one, or a .csv, .tsv, .parquet, .jsonl or .manifest "
            "file of paths and labels"
        )
    return _open_table(source, format_, wanted_group)


def _list_folder(source: DataSource, folder: Folder, wanted_group: str | None) -> Listing:
    if source.format == "parquet":
        raise DataError(f"{source.path}: expected a parquet file, found a folder")
    if source.image_root is not None:
        raise DataError(f"image_root: only for tables, but {source.path} is a folder")
    if source.format == "vtab" or (source.format == "auto" and is_vtab(folder)):
        return _finish(source, "vtab", *list_vtab(folder, source))
    tree = folder.tree()
    if source.format in ("auto", *_METADATA.values()) and (tables := _find_metadata(folder, tree)):
        return _list_metadata(source, folder, tree, tables, wanted_group)
    if source.format in _READERS:
        raise DataError(
            f"{source.path}: expected a {source.format} file, found a folder without a table metadata.csv or "
            "metadata.jsonl that has file_name and label"
        )
    if source.format == "mvtec" or (source.format == "auto" and is_mvtec(tree)):
        items, passed_over = list_mvtec(folder, tree)
        return _finish(source, "mvtec", items, passed_over=passed_over)
    if source.format == "visa" or (source.format == "auto" and find_visa(tree) is not None):
        items, passed_over = list_visa(folder, tree)
        return _finish(source, "visa", items, passed_over=passed_over)
    items, passed_over = list_imagefolder(folder, tree, is_sure=source.format == "imagefolder")
    return _finish(source, "imagefolder", items, passed_over=passed_over)


def _find_metadata(folder: Folder, tree: FolderTree) -> dict[str, bytes]:
    """Tables with labels in the folder, or in that of each split; none if they have no labels."""
    places = ["", *(f"{name}/" for name in sorted(tree.children()) if find_split(name) is not None)]
    paths = [place + name for place in places for name in _METADATA if place + name in tree.files]
    tables = {path: folder.read(path) for path in paths}
    return {path: content for path, content in tables.items() if _has_labels(path, content)}


def _has_labels(path: str, content: bytes) -> bool:
    is_csv = _METADATA[posixpath.basename(path)] == "csv"
    return set(REQUIRED) <= set(csv_columns(content, path) if is_csv else json_columns(content))


def _list_metadata(
    source: DataSource, folder: Folder, tree: FolderTree, tables: dict[str, bytes], wanted_group: str | None
) -> Listing:
    items: list[Item] = []
    formats = [_METADATA[posixpath.basename(path)] for path in tables]
    for format_, (path, content) in zip(formats, tables.items(), strict=True):
        below = posixpath.dirname(path)
        table = TablePlace(
            name=folder.locate(path),
            images=folder,
            group=source.group or wanted_group,
            may_lack_groups=source.group is None,
            below=below,
            split=below or None,
        )
        items += _READERS[format_](content, table)
    passed_over = pass_over_rest(tree, items, tables, "pictures that no table names")
    return _finish(source, formats[0], items, passed_over=passed_over)


def _open_table(source: DataSource, format_: DataFormat, wanted_group: str | None) -> tuple[Folder, Listing]:
    content = read_small_file(source.path, max_bytes=MAX_TABLE_BYTES)
    parent, _ = open_parent(source.path)
    images = parent if source.image_root is None else open_folder(source.image_root)
    if source.image_root is None and format_ == "jsonl" and (paths := manifest_paths(content)):
        # A manifest names its pictures by URLs, wherever it lies itself.
        images = open_folder(common_parent(paths))
    table = TablePlace(
        name=str(source.path),
        images=images,
        folder=parent,
        group=source.group or wanted_group,
        may_lack_groups=source.group is None,
    )
    return images, _finish(source, format_, _READERS[format_](content, table))


def _finish(
    source: DataSource,
    format_: DataFormat,
    items: list[Item],
    labels: tuple[str, ...] | None = None,
    passed_over: Iterable[PassedOver] = (),
) -> Listing:
    items = name_groups(items, source)
    # The lists of VTAB-1k are a protocol: nothing is cut from them.
    items = sorted(items, key=lambda item: item.path) if format_ == "vtab" else cut_splits(items, source)
    return Listing(
        format=format_,
        labels=labels if labels is not None else sort_labels(item.label for item in items),
        items=tuple(items),
        passed_over=merge_passed_over(passed_over),
    )


def _name_problems(source: DataSource, listing: Listing) -> list[str]:
    return [
        f"{source.path}: {name!r}: expected a name in UTF-8; rename the file or folder"
        for name in (*listing.labels, *(item.path for item in listing.items))
        if not _is_text(name)
    ]


def _problems(source: DataSource, listing: Listing) -> list[str]:
    problems = _name_problems(source, listing)
    problems += [f"{source.path}: {problem}" for problem in _find_lookalikes(listing.labels)]
    if len(listing.labels) < 2:
        problems.append(
            f"{source.path}: expected at least 2 classes, found {len(listing.labels)}"
            f"{': ' + ', '.join(listing.labels) if listing.labels else ''}"
        )
    problems += divided_groups(source, listing)
    counts = listing.num_of_split
    if not counts["train"]:
        problems.append(f"{source.path}: no training images")
    if not counts["val"] + counts["test"]:
        problems.append(
            f"{source.path}: no images held out for testing; set test_fraction above 0, or add a test split"
        )
    # The thousand of VTAB-1k were drawn at random.
    if listing.format != "vtab" and counts["train"]:
        trained = Counter(item.label for item in listing.of_split("train"))
        problems += [
            f"{source.path}: class {label!r} has no training image"
            for label in listing.labels
            if label not in trained
        ]
    return problems


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8: one of another encoding comes from a disk as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_lookalikes(labels: Iterable[str]) -> list[str]:
    """A problem for labels that differ, and look the same or are the same number."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for label in labels:
        shown = "".join(char for char in unicodedata.normalize("NFKC", label) if char.isprintable())
        shown = shown.strip().translate(_LOOKALIKES)
        # A program that reads `01` as a number writes it as `1`.
        number = _WHOLE.fullmatch(shown)
        key = ("look alike", shown) if number is None else ("are the same number", "".join(number.groups()))
        found[key].append(label)
    return [
        f"classes that {how}: "
        + " and ".join(f"{label!r} ({' '.join(f'U+{ord(char):04X}' for char in label)})" for label in alike)
        + "; give them one name, or names that differ"
        for (how, _), alike in found.items()
        if len(alike) > 1
    ]
