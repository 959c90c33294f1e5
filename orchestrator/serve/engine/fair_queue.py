"""A bounded queue in which tasks take turns, so that one task's flood holds up no other task."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Item]):
    """First in, first out within a task; tasks take turns. Of one thread.

    An item is itself and no other, as its hash says, and waits once.

    Attributes:
        max_items: Most items that may wait, all tasks together; may be changed at any time.
    """

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        self._num_items = 0
        # The task whose turn is next comes first; none is empty. Its items, the oldest first: a deque would
        # be searched for what is to leave, and would print what it has not found.
        self._lines: OrderedDict[str, OrderedDict[Item, None]] = OrderedDict()

    def __len__(self) -> int:
        """Items that wait."""
        return self._num_items

    def put(self, task: str, item: Item) -> Item | None:
        """Let an item wait; returns the item that has to leave for it, if the queue is full.

        That is the newest item of the task with most of them; ``item`` itself, if its own task would then
        have more (or two tasks would push each other out without end).
        """
        left = None
        if self._num_items >= self.max_items:
            longest = max(self._lines, key=lambda name: len(self._lines[name]), default=task)
            if len(self._lines.get(longest, ())) < len(self._lines.get(task, ())) + 2:
                return item
            left = next(reversed(self._lines[longest]))
            self.remove(longest, left)
        self._lines.setdefault(task, OrderedDict())[item] = None
        self._num_items += 1
        return left

    def take(self) -> Item:
        """The item whose turn it is.

        Raises:
            KeyError: Nothing waits.
        """
        task, line = self._lines.popitem(last=False)
        item, _ = line.popitem(last=False)
        if line:
            self._lines[task] = line
        self._num_items -= 1
        return item

    def remove(self, task: str, item: Item) -> bool:
        """Let an item wait no longer; False if it does not wait."""
        line = self._lines.get(task)
        if line is None or item not in line:
            return False
        del line[item]
        if not line:
            del self._lines[task]
        self._num_items -= 1
        return True
