"""Values that the console keeps for a moment: by their age, or those that were asked for last."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Bounded", "Kept"]

_Value = TypeVar("_Value")


class Kept(Generic[_Value]):
    """A value that is read at most once in a while, by one thread at a time.

    Args:
        age_s: Seconds after which it is read anew.
        clock: Monotonic seconds.
    """

    def __init__(self, age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._age_s, self._clock = age_s, clock
        self._lock = threading.Lock()
        self._found: tuple[float, _Value] | None = None

    def get(self, read: Callable[[], _Value]) -> _Value:
        """The value; ``read`` gives it anew when it is too old, and its errors are raised."""
        with self._lock:
            now_s = self._clock()
            if self._found is None or now_s - self._found[0] >= self._age_s:
                self._found = now_s, read()
            return self._found[1]

    def forget(self) -> None:
        """Read it anew, the next time."""
        with self._lock:
            self._found = None


class Bounded(Generic[_Value]):
    """The values that were asked for last; threads may share it.

    Args:
        most: Values that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """The value of a key; ``make`` gives one that is not kept, and its errors are raised."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def forget(self) -> None:
        """Make all values anew."""
        with self._lock:
            self._values.clear()
