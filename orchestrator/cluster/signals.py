"""Handling of SIGINT and SIGTERM: the first ends a run or an endpoint cleanly.

Signals reach the main thread only; in other threads these blocks change nothing.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["catch_interruption", "deferred_signals", "interrupting_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


_Handler = Callable[[int, FrameType | None], None]


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """The first signal raises ``KeyboardInterrupt`` in the block; later ones are ignored.

    A second one would interrupt the clean-up and leave processes behind.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for ignored in _SIGNALS:
            signal.signal(ignored, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Signals wait until the end of the block, even if the block installs handlers of its own."""
    held: list[int] = []
    try:
        with _handled_by(lambda number, _: held.append(number)):
            yield
    finally:
        if held:
            signal.raise_signal(held[0])


@contextmanager
def catch_interruption(on_first: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """An event that is set at the first signal; the second raises ``KeyboardInterrupt``.

    Args:
        on_first: Called in the handler of the first signal.
    """
    event = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        on_first()

    with _handled_by(handle):
        yield event


@contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    """Handle both signals for the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
