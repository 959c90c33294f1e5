"""Waiting time of a batch for one more row, learned from arrivals and passes: there is nothing to tune.

A forward pass takes about ``fixed + rows * per_row`` seconds. A row that comes along with others saves a
``fixed`` of its own; waiting for it costs the time until it comes. So it is waited for while it is expected
sooner than what it saves: not at all by a lone client, and hardly under a flood, when batches fill by
themselves while the pass before is running.
"""

__all__ = ["BatchWait"]

# What was seen counts half after 23 passes or arrivals.
_KEPT = 0.5 ** (1 / 23)
# A row that is overdue by this many times its gap is not coming.
_OVERDUE = 2.0
# A pass that takes less than this part of what was expected: the device has become another one, such as once
# the prompts of a start are loaded. By chance a pass takes longer, never so much less.
_FASTER = 0.5


class BatchWait:
    """The policy of one queue. Of one thread; times are seconds of one clock.

    Args:
        max_wait_s: Longest wait of any batch.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._arrived_s: float | None = None
        self._gap_s: float | None = None
        # Sums over passes of 1, rows, rows^2, seconds and rows * seconds.
        self._weight = self._rows = self._rows2 = self._seconds = self._product = 0.0

    def note_arrival(self, now_s: float) -> None:
        """A row has come."""
        if self._arrived_s is not None:
            # One pause, however long, is no more than a sign that rows are rare.
            gap_s = min(now_s - self._arrived_s, 4.0 * self._max_wait_s)
            self._gap_s = gap_s if self._gap_s is None else self._gap_s * _KEPT + gap_s * (1.0 - _KEPT)
        self._arrived_s = now_s

    def note_pass(self, num_rows: int, seconds: float) -> None:
        """A forward pass is done. One that is far faster than expected has what was seen before forgotten."""
        if seconds < _FASTER * self.expected_s(num_rows):
            self._weight = self._rows = self._rows2 = self._seconds = self._product = 0.0
        self._weight = self._weight * _KEPT + 1.0
        self._rows = self._rows * _KEPT + num_rows
        self._rows2 = self._rows2 * _KEPT + num_rows * num_rows
        self._seconds = self._seconds * _KEPT + seconds
        self._product = self._product * _KEPT + num_rows * seconds

    @property
    def fixed_s(self) -> float:
        """Seconds of a pass apart from its rows: by least squares; 0 while all passes were alike."""
        return self._line()[0]

    def expected_s(self, num_rows: int) -> float:
        """Expected seconds of a pass of so many rows; 0 before the first."""
        fixed_s, per_row_s = self._line()
        return fixed_s + num_rows * per_row_s

    def rows_within(self, seconds: float) -> int | None:
        """Rows of a pass that takes so long, one at least; None while there is nothing to tell it from."""
        fixed_s, per_row_s = self._line()
        return max(1, int((seconds - fixed_s) / per_row_s)) if per_row_s else None

    def _line(self) -> tuple[float, float]:
        """Seconds of a pass, and of each of its rows."""
        spread = self._weight * self._rows2 - self._rows * self._rows
        if spread <= 1e-6 * self._weight * self._rows2:
            return 0.0, self._seconds / self._rows if self._rows else 0.0
        per_row_s = max(0.0, (self._weight * self._product - self._rows * self._seconds) / spread)
        return max(0.0, (self._seconds - per_row_s * self._rows) / self._weight), per_row_s

    def pause_s(self, now_s: float, began_s: float) -> float:
        """Seconds to wait for the next row from now on; 0 to go.

        Args:
            now_s: The time.
            began_s: Since when there are rows and nothing is under way.
        """
        if self._gap_s is None or self._arrived_s is None:
            return 0.0
        left_s = self._max_wait_s - (now_s - began_s)
        if self._gap_s > min(self.fixed_s, left_s):
            return 0.0
        return max(0.0, min(left_s, self._arrived_s + _OVERDUE * self._gap_s - now_s))
