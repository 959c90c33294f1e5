"""Calls in several threads, with their answers in order: for reads from places that may be slow, or hang."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["map_in_order"]

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(call: Callable[[T], R], items: Iterable[T], num_threads: int) -> Generator[R]:
    """Answers of ``call`` for each item, in the items' order; calls begin in this order, too.

    Its threads are daemons, and nothing waits for them: once the generator is closed, such as by an error or
    an interrupt, no further call begins, and a read that hangs holds up neither the caller nor the end of the
    process.

    Args:
        call: Takes an item; called in the threads.
        items: The items.
        num_threads: Calls at a time.

    Raises:
        Exception: What a call raised, in its place.
    """
    calls = [(item, Future[R]()) for item in items]
    waiting = deque(calls)

    def work() -> None:
        while waiting:
            try:
                item, answer = waiting.popleft()
            except IndexError:
                return
            try:
                answer.set_result(call(item))
            except BaseException as error:
                # The caller's to handle, in its own thread.
                answer.set_exception(error)

    for _ in range(min(num_threads, len(calls))):
        threading.Thread(target=work, name="map-in-order", daemon=True).start()
    try:
        for _, answer in calls:
            yield answer.result()
    finally:
        waiting.clear()
