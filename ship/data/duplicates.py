"""Images that are there twice: one picture in two splits, which makes a result look better than it is."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ship.data.items import Listing, SplitName
from ship.data.source import DataSource
from ship.errors import DataError

if TYPE_CHECKING:
    from ship.data.task_data import Split, TaskData

__all__ = ["count_repeated", "find_leaked", "pixel_digests", "refuse_duplicates"]

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


def count_repeated(listing: Listing, sha256_by_path: Mapping[str, str], split: SplitName) -> int:
    """Images of a split that come after another one of it of the same bytes."""
    digests = [sha256_by_path[item.path] for item in listing.of_split(split)]
    return len(digests) - len(set(digests))


def find_leaked(data: "TaskData") -> list[str]:
    """Paths of held-out images that are trained on as well, pixel for pixel as the backbone sees them."""
    trained = set(pixel_digests(data.train))
    digests = pixel_digests(data.held_out)
    return [path for path, digest in zip(data.held_out.paths, digests, strict=True) if digest in trained]


def pixel_digests(split: "Split") -> list[str]:
    """sha256 of each image's pixels, as the backbone sees them."""
    return [hashlib.sha256(image.contiguous().numpy().data).hexdigest() for image in split.images_B3HW]
