"""Turns the first Ctrl-C (or SIGTERM) into a flag, so that a run can end in good order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["catch_interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def catch_interruption() -> Iterator[threading.Event]:
    """An event that is set at the first signal; the second raises ``KeyboardInterrupt``.

    Outside the main thread no signal arrives, and the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
