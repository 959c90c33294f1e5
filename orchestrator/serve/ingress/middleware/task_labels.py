"""Which tasks are told apart in metrics: so many of those that are asked often, and the rest together."""

from collections import Counter

__all__ = ["OTHERS", "TaskLabels"]

OTHERS = "other"


class TaskLabels:
    """Label values that are few, and that a task keeps once it has one: so no count ever goes down.

    Args:
        max_labels: Tasks with a label of their own.
        min_asked: Times that a task is asked before it gets one, so that who is asked often comes first.
    """

    def __init__(self, max_labels: int = 50, min_asked: int = 10) -> None:
        self._max_labels, self._min_asked = max_labels, min_asked
        self._labels: set[str] = set()
        self._asked: Counter[str] = Counter()

    def label(self, task: str) -> str:
        """The label of a task that is asked once more."""
        if task in self._labels:
            return task
        if len(self._labels) >= self._max_labels:
            return OTHERS
        self._asked[task] += 1
        if self._asked[task] < self._min_asked:
            return OTHERS
        del self._asked[task]
        self._labels.add(task)
        if len(self._labels) == self._max_labels:
            self._asked.clear()
        return task
