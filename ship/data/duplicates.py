"""Images that are there twice: one picture in two splits, which makes a result look better than it is."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ship.data.items import Listing
from ship.data.source import DataSource
from ship.errors import DataError

if TYPE_CHECKING:
    from ship.data.task_data import Split, TaskData

__all__ = ["count_repeated", "find_leaked", "is_taken_as_it_is", "leave_out_leaked", "refuse_duplicates"]

_MOST_NAMED = 20


def is_taken_as_it_is(source: DataSource, listing: Listing) -> bool:
    """Whether one picture may lie in two splits: if the source allows it, or by the protocol of VTAB-1k."""
    return source.allow_duplicates or listing.format == "vtab"


def refuse_duplicates(source: DataSource, listing: Listing, sha256_by_path: Mapping[str, str]) -> None:
    """Refuse data with one file in two splits, unless it may lie there.

    Raises:
        DataError: Names each pair.
    """
    if is_taken_as_it_is(source, listing):
        return
    first: dict[str, tuple[str, str]] = {}
    problems = []
    for item in listing.items:
        path, split = first.setdefault(sha256_by_path[item.path], (item.path, item.split))
        if split != item.split:
            problems.append(
                f"{source.path}: {path} ({split}) and {item.path} ({item.split}) are the same file"
            )
    if problems:
        more = len(problems) - _MOST_NAMED
        raise DataError(
            [
                *problems[:_MOST_NAMED],
                *([f"{source.path}: and {more} more pairs"] if more > 0 else []),
                f"{source.path}: delete one of each pair, or set allow_duplicates: true",
            ]
        )


def count_repeated(listing: Listing, sha256_by_path: Mapping[str, str]) -> int:
    """Training images that come after another of the same bytes."""
    digests = [sha256_by_path[item.path] for item in listing.of_split("train")]
    return len(digests) - len(set(digests))


def leave_out_leaked(data: "TaskData") -> "TaskData":
    """The data without held-out images that are trained on, pixel for pixel as the backbone sees them.

    So are validation images, once they have chosen the settings. The same picture in another format, or with
    other notes, is another file, which ``refuse_duplicates`` does not know.

    Raises:
        DataError: None is left of a split.
    """
    known, splits = set(_pixel_digests(data.train)), {}
    for name, split in (("val", data.val), ("test", data.test)):
        if split is None:
            continue
        digests = _pixel_digests(split)
        is_new_B = torch.tensor([digest not in known for digest in digests], dtype=torch.bool)
        if not is_new_B.any():
            raise DataError(
                f"all {len(split)} images of {name} are, as the backbone sees them, pixel for pixel what is "
                f"trained on, such as {split.paths[0]}: nothing can be measured on them, and `ship check` "
                "lists the copies"
            )
        known.update(digests)
        splits[name] = split if is_new_B.all() else split.take(is_new_B)
    left_out = replace(data, val=splits.get("val"), test=splits.get("test"))
    kept = set(left_out.held_out.paths)
    return replace(left_out, leaked=tuple(path for path in data.held_out.paths if path not in kept))


def find_leaked(data: "TaskData") -> list[str]:
    """Paths of held-out images that are trained on as well, pixel for pixel as the backbone sees them."""
    trained = set(_pixel_digests(data.train))
    digests = _pixel_digests(data.held_out)
    return [path for path, digest in zip(data.held_out.paths, digests, strict=True) if digest in trained]


def _pixel_digests(split: "Split") -> list[bytes]:
    return [hashlib.sha256(image.contiguous().numpy().data).digest() for image in split.images_B3HW]
