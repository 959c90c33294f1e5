"""Groups of images that belong together, such as the pictures of one part: named, and never divided."""

import re
from collections.abc import Iterable
from dataclasses import replace

from ship.data.items import Item, Listing
from ship.data.source import DataSource
from ship.errors import DataError

__all__ = ["divided_groups", "find_groups", "name_groups"]

_MOST_NAMED = 10


def name_groups(items: Iterable[Item], source: DataSource) -> list[Item]:
    """The items with their groups: a column's values are there already, a pattern is searched for in paths.

    Raises:
        DataError: The pattern is none, or some path does not match it.
    """
    items = list(items)
    if source.group is None or any(item.group is not None for item in items):
        return items
    pattern = re.compile(source.group)
    if pattern.groups != 1:
        raise DataError(
            f"{source.path}: group: {source.group!r} is no column, and no regular expression with one group"
        )
    found = [pattern.search(item.path) for item in items]
    named = [match is not None and match.group(1) is not None for match in found]
    if not all(named):
        wrong = [item.path for item, is_named in zip(items, named, strict=True) if not is_named]
        raise DataError(
            f"{source.path}: group: {source.group!r} names no group in {len(wrong)} paths: {_few(wrong)}"
        )
    return [
        replace(item, group=match.group(1))
        for item, match in zip(items, found, strict=True)
        if match is not None
    ]


def find_groups(items: Iterable[Item], group: str) -> list[Item]:
    """The items with their groups where they can be told: by a column, or else by a pattern.

    Args:
        items: Images of a table that may lack the column, and name its files as it likes.
        group: Column or pattern of the data set that they join.
    """
    items = list(items)
    if any(item.group is not None for item in items):
        return items
    return [replace(item, group=_search(group, item.path)) for item in items]


def _search(pattern: str, path: str) -> str | None:
    """The group that a pattern names in a path; None if it is the name of a column."""
    try:
        match = re.search(pattern, path)
    except re.error:
        return None
    return match.group(1) if match is not None and match.re.groups == 1 else None


def divided_groups(source: DataSource, listing: Listing) -> list[str]:
    """A problem if a group has images in two splits: of a split that the data names itself."""
    splits: dict[str, set[str]] = {}
    for item in listing.items:
        if item.group is not None:
            splits.setdefault(item.group, set()).add(item.split)
    divided = sorted(group for group, found in splits.items() if len(found) > 1)
    if not divided:
        return []
    further = "" if source.more is None else ", `more` included, whose images are trained on"
    return [
        f"{source.path}: {len(divided)} groups have images in more than one split{further}: {_few(divided)}; "
        f"move each into one split{' or out of `more`' if source.more else ''}, or leave out `group`"
    ]


def _few(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
