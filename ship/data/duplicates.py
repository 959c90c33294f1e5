"""Images that are there twice: one picture in two splits, which makes a result look better than it is."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ship.data.items import Listing
from ship.data.source import DataSource
from ship.errors import DataError

if TYPE_CHECKING:
    from ship.data.task_data import Split, TaskData

__all__ = ["count_repeated", "find_leaked", "refuse_duplicates"]

_MOST_NAMED = 20


def refuse_duplicates(source: DataSource, listing: Listing, sha256_by_path: Mapping[str, str]) -> None:
    """Refuse data with one file in two splits, unless the source allows it.

    The lists of VTAB-1k are a protocol, and are taken as they are.

    Raises:
        DataError: Names each pair.
    """
    if source.allow_duplicates or listing.format == "vtab":
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


def find_leaked(data: "TaskData") -> list[str]:
    """Paths of held-out images that are trained on as well, pixel for pixel as the backbone sees them."""
    trained = set(_pixel_digests(data.train))
    digests = _pixel_digests(data.held_out)
    return [path for path, digest in zip(data.held_out.paths, digests, strict=True) if digest in trained]


def _pixel_digests(split: "Split") -> list[bytes]:
    return [hashlib.sha256(image.contiguous().numpy().data).digest() for image in split.images_B3HW]
