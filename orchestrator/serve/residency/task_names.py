"""Names of the catalog's tasks in order, and those that a token's patterns match, found once for each."""

import bisect
import re
from collections import OrderedDict
from collections.abc import Iterable
from fnmatch import translate

__all__ = ["TaskNames"]

# Sets of patterns whose names are kept: as many tokens as ask at a time.
_MOST_KEPT = 64


class TaskNames:
    """Sorted names of tasks, for pages of a list.

    Args:
        names: The names, in any order.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = sorted(names)
        self._matched: OrderedDict[tuple[str, ...], list[str]] = OrderedDict()

    def behind(self, patterns: tuple[str, ...], after: str) -> list[str]:
        """Names behind ``after`` that one of the patterns matches."""
        names = self._match(patterns)
        return names[bisect.bisect_right(names, after) :]

    def _match(self, patterns: tuple[str, ...]) -> list[str]:
        if "*" in patterns:
            return self._names
        found = self._matched.pop(patterns, None)
        if found is None:
            is_match = re.compile("|".join(map(translate, patterns)) or r"(?!)").match
            found = [name for name in self._names if is_match(name)]
        self._matched[patterns] = found
        if len(self._matched) > _MOST_KEPT:
            self._matched.popitem(last=False)
        return found
