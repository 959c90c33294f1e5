"""Values that the console keeps for a moment: by their age, or those that were asked for last."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar, cast

__all__ = ["ERROR_AGE_S", "Bounded", "Kept"]

# What is kept for long, or for good, is asked for again soon after an error.
ERROR_AGE_S = 2.0
_Value = TypeVar("_Value")


class Kept(Generic[_Value]):
    """A value, or the error of reading it, that is read at most once in a while, by one thread at a time.

    An error is kept for ``ERROR_AGE_S`` at most. While one thread asks again for what could not be read, the
    others get that error at once: a store that is away may take a minute to say so, and threads are few.

    Args:
        age_s: Seconds after which it is read anew.
        clock: Monotonic seconds.
    """

    def __init__(self, age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._age_s, self._clock = age_s, clock
        self._lock = threading.Lock()
        self._value: _Value | None = None
        self._error: Exception | None = None
        self._until_s = float("-inf")

    def get(self, read: Callable[[], _Value]) -> _Value:
        """The value; ``read`` gives it anew when it is too old.

        Raises:
            Exception: ``read`` did, now or a moment ago.
        """
        failed = self._error
        if failed is None:
            self._lock.acquire()
        elif not self._lock.acquire(blocking=False):
            raise failed.with_traceback(None)
        try:
            return self._get(read)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Read it anew, the next time."""
        with self._lock:
            self._error, self._until_s = None, float("-inf")

    def _get(self, read: Callable[[], _Value]) -> _Value:
        began_s = self._clock()
        if began_s >= self._until_s:
            try:
                self._value, self._error = read(), None
                self._until_s = began_s + self._age_s
            except Exception as error:
                self._error = error
                # From its end: giving up may take longer than an error is kept.
                self._until_s = self._clock() + min(self._age_s, ERROR_AGE_S)
        if self._error is not None:
            raise self._error.with_traceback(None)
        return cast("_Value", self._value)


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
