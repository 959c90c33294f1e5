"""Tasks that wait for a worker, in the order in which they are to be taken.

Finding the next of ten thousand has to be as cheap as of ten: two heaps, of those that may be taken and of
those that pause before another try. What is removed stays in its heap until it comes up.
"""

import heapq
from collections.abc import Sequence

__all__ = ["WaitingTasks"]


class WaitingTasks:
    """A queue of names.

    Args:
        in_order: All names there may ever be, first to be taken first.
    """

    def __init__(self, in_order: Sequence[str]) -> None:
        self._names = list(in_order)
        self._rank = {name: rank for rank, name in enumerate(self._names)}
        # Rank, and the token of the put: an entry whose token is not the name's latest is void.
        self._ready: list[tuple[int, int]] = []
        self._paused: list[tuple[float, int, int]] = []
        self._token: dict[str, int] = {}
        self._num_puts = 0

    def put(self, name: str, not_before_s: float) -> None:
        """Let a task wait; it is not taken before that time."""
        self._num_puts += 1
        self._token[name] = self._num_puts
        heapq.heappush(self._paused, (not_before_s, self._rank[name], self._num_puts))

    def remove(self, name: str) -> None:
        """Let a task wait no more, if it does."""
        self._token.pop(name, None)

    def __len__(self) -> int:
        """Tasks that wait."""
        return len(self._token)

    def first(self, now_s: float) -> str | None:
        """The first task that may be taken now; it waits on."""
        while self._paused and self._paused[0][0] <= now_s:
            _, rank, token = heapq.heappop(self._paused)
            heapq.heappush(self._ready, (rank, token))
        while self._ready:
            rank, token = self._ready[0]
            name = self._names[rank]
            if self._token.get(name) == token:
                return name
            heapq.heappop(self._ready)
        return None
