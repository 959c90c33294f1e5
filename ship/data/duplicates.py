"""Files that are there twice: one picture in two splits makes a result look better than it is."""

from collections.abc import Mapping

from ship.data.items import Listing, SplitName
from ship.data.source import DataSource
from ship.errors import DataError

__all__ = ["count_repeated", "is_taken_as_it_is", "refuse_duplicates"]

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


def count_repeated(listing: Listing, sha256_by_path: Mapping[str, str], split: SplitName) -> int:
    """Images of a split that come after another one of it of the same bytes."""
    digests = [sha256_by_path[item.path] for item in listing.of_split(split)]
    return len(digests) - len(set(digests))
