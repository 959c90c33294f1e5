"""A log of events with positions: read from a position on, and dropped once acknowledged.

Knows no meaning of events, except that those of kind ``epoch`` and ``search`` may be dropped while the reader
is away.
"""

from collections.abc import Sequence

from orchestrator.events import Event

__all__ = ["EventLog"]

MAX_EVENTS = 100_000
MAX_READ = 5_000


class EventLog:
    """Events in order, each at a position counted from 0.

    Args:
        max_events: When this many wait for the reader, the oldest of those are dropped.
        max_read: Events of one read.
    """

    def __init__(self, max_events: int = MAX_EVENTS, max_read: int = MAX_READ) -> None:
        self._max_events, self._max_read = max_events, max_read
        self._waiting: list[tuple[int, Event]] = []
        self._next = 0

    def __len__(self) -> int:
        """Number of events that wait for the reader."""
        return len(self._waiting)

    def append(self, event: Event) -> int:
        """Append an event; returns its position."""
        position = self._next
        self._waiting.append((position, event))
        self._next += 1
        if len(self._waiting) > self._max_events:
            self._drop_epochs()
        return position

    def read(self, since: int) -> tuple[Sequence[Event], int]:
        """Events from position ``since`` on, and the position to ask for next.

        This acknowledges all events before ``since``, which are dropped. Unacknowledged events are given
        again, so that a reader that dies half-way loses none.
        """
        self._waiting = [item for item in self._waiting if item[0] >= since]
        page = self._waiting[: self._max_read]
        if len(page) == len(self._waiting):
            return [event for _, event in page], self._next
        return [event for _, event in page], page[-1][0] + 1

    def _drop_epochs(self) -> None:
        """Drop ``epoch`` and ``search`` events, points of a curve, from the older half."""
        half = len(self._waiting) // 2
        kept = [item for item in self._waiting[:half] if item[1].kind not in ("epoch", "search")]
        self._waiting = kept + self._waiting[half:]
