"""From a source to its listing: find the format, list the images, cut splits, check the whole."""

import posixpath
from collections import Counter
from collections.abc import Sequence

from ship.data.folder import Folder, open_folder, open_parent, read_small_file
from ship.data.grouping import divided_groups, name_groups
from ship.data.imagefolder import is_mvtec, list_imagefolder, list_mvtec
from ship.data.items import Item, Listing, SplitName, sort_labels
from ship.data.source import DataFormat, DataSource
from ship.data.splitting import cut_splits
from ship.data.tables import MAX_TABLE_BYTES, list_csv, list_parquet
from ship.data.vtab import is_vtab, list_vtab
from ship.errors import DataError

__all__ = ["TABLE_FORMATS", "TABLE_SUFFIXES", "list_items", "open_labelled", "open_listing"]

_TABLE_FORMATS: dict[str, DataFormat] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
TABLE_SUFFIXES, TABLE_FORMATS = tuple(_TABLE_FORMATS), tuple(dict.fromkeys(_TABLE_FORMATS.values()))


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
    """The listing of any labelled images."""
    folder = open_folder(source.path)
    if folder.is_folder():
        return folder, _list_folder(source, folder)
    extension = posixpath.splitext(source.path)[1].lower()
    format_ = _TABLE_FORMATS.get(extension) if source.format == "auto" else source.format
    if format_ not in ("csv", "parquet"):
        raise DataError(
            f"{source.path}: no such folder; expected one, or a .csv or .parquet file of paths and labels"
        )
    return _open_table(source, format_)


def _list_folder(source: DataSource, folder: Folder) -> Listing:
    if source.format in ("csv", "parquet"):
        raise DataError(f"{source.path}: expected a {source.format} file, found a folder")
    if source.image_root is not None:
        raise DataError(f"image_root: only for csv and parquet, but {source.path} is a folder")
    if source.format == "vtab" or (source.format == "auto" and is_vtab(folder)):
        return _finish(source, "vtab", *list_vtab(folder, source))
    tree = folder.tree()
    if source.format == "mvtec" or (source.format == "auto" and is_mvtec(tree)):
        return _finish(source, "mvtec", list_mvtec(folder, tree))
    return _finish(source, "imagefolder", list_imagefolder(folder, tree))


def _open_table(source: DataSource, format_: DataFormat) -> tuple[Folder, Listing]:
    content = read_small_file(source.path, max_bytes=MAX_TABLE_BYTES)
    parent, _ = open_parent(source.path)
    images = parent if source.image_root is None else open_folder(source.image_root)
    read = list_csv if format_ == "csv" else list_parquet
    return images, _finish(source, format_, read(content, source.path, images, source.group))


def _finish(
    source: DataSource, format_: DataFormat, items: list[Item], labels: tuple[str, ...] | None = None
) -> Listing:
    items = name_groups(items, source)
    # The lists of VTAB-1k are a protocol: nothing is cut from them.
    items = sorted(items, key=lambda item: item.path) if format_ == "vtab" else cut_splits(items, source)
    return Listing(
        format=format_,
        labels=labels if labels is not None else sort_labels(item.label for item in items),
        items=tuple(items),
    )


def _name_problems(source: DataSource, listing: Listing) -> list[str]:
    return [
        f"{source.path}: {name!r}: expected a name in UTF-8; rename the file or folder"
        for name in (*listing.labels, *(item.path for item in listing.items))
        if not _is_text(name)
    ]


def _problems(source: DataSource, listing: Listing) -> list[str]:
    problems = _name_problems(source, listing)
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
