"""A bounded queue in which tasks take turns, so that one task's flood holds up no other task."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Item]):
    """First in, first out within a task; tasks take turns. Of one thread.

    An item is itself and no other, as its hash says, and waits once.

    Args:
        max_rows: Most rows that may wait, all tasks together.
        size_of: Rows of an item, at least one.

    Attributes:
        max_rows: May be changed at any time.
    """

    def __init__(self, max_rows: int, size_of: Callable[[Item], int] = lambda item: 1) -> None:
        self.max_rows = max_rows
        self._size_of = size_of
        self._num_rows = 0
        self._rows_of: Counter[str] = Counter()
        # The task whose turn is next comes first; none is empty. Its items, the oldest first: a deque would
        # be searched for what is to leave, and would print what it has not found.
        self._lines: OrderedDict[str, OrderedDict[Item, None]] = OrderedDict()

    def __len__(self) -> int:
        """Rows that wait."""
        return self._num_rows

    def put(self, task: str, item: Item) -> list[Item]:
        """Let an item wait; returns the items that have to leave for it, if the queue is full.

        These are the newest items of the task with most rows; ``item`` itself, if its own task would then
        have more (or two tasks would push each other out without end). One that is larger than the whole
        queue waits alone.
        """
        size = self._size_of(item)
        leaving = self._find_leaving(task, max(1, min(size, self.max_rows)))
        if leaving is None:
            return [item]
        for name, left in leaving:
            self.remove(name, left)
        self._lines.setdefault(task, OrderedDict())[item] = None
        self._count(task, size)
        return [left for _, left in leaving]

    def take(self) -> Item:
        """The item whose turn it is.

        Raises:
            KeyError: Nothing waits.
        """
        task, line = self._lines.popitem(last=False)
        item, _ = line.popitem(last=False)
        if line:
            self._lines[task] = line
        self._count(task, -self._size_of(item))
        return item

    def remove(self, task: str, item: Item) -> bool:
        """Let an item wait no longer; False if it does not wait."""
        line = self._lines.get(task)
        if line is None or item not in line:
            return False
        del line[item]
        if not line:
            del self._lines[task]
        self._count(task, -self._size_of(item))
        return True

    def _find_leaving(self, task: str, size: int) -> list[tuple[str, Item]] | None:
        """Items that make room for so many rows of a task; None if it has no right to that."""
        surplus = self._num_rows + size - self.max_rows
        if surplus <= 0:
            return []
        leaving: list[tuple[str, Item]] = []
        rows_of = self._rows_of.copy()
        newest: dict[str, Iterator[Item]] = {}
        while surplus > 0:
            longest = max(rows_of, key=lambda name: rows_of[name], default=task)
            if rows_of[longest] < rows_of[task] + size + 1:
                return None
            item = next(newest.setdefault(longest, reversed(self._lines[longest])))
            leaving.append((longest, item))
            rows_of[longest] -= self._size_of(item)
            surplus -= self._size_of(item)
        return leaving

    def _count(self, task: str, num_rows: int) -> None:
        self._num_rows += num_rows
        self._rows_of[task] += num_rows
        if not self._rows_of[task]:
            del self._rows_of[task]
