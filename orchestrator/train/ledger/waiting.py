"""Queue of the tasks that wait for a worker.

Finding the next of ten thousand has to be as cheap as of ten: two heaps, of ready tasks and of those that
pause before another attempt. A removed task stays in its heap until it comes up.
"""

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ship.settings.search_config import num_full_tunings

if TYPE_CHECKING:
    from orchestrator.planning.spec import TaskSpec

__all__ = ["WaitingTasks", "order_of"]


class WaitingTasks:
    """A priority queue of task names.

    Args:
        in_order: Names of all tasks, in the order of their priority.
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
        """Add a task that is not to be taken before a time."""
        self._num_puts += 1
        self._token[name] = self._num_puts
        heapq.heappush(self._paused, (not_before_s, self._rank[name], self._num_puts))

    def remove(self, name: str) -> None:
        """Remove a task, if it is there."""
        self._token.pop(name, None)

    def __len__(self) -> int:
        """Number of waiting tasks."""
        return len(self._token)

    def first(self, now_s: float) -> str | None:
        """The first task that may be taken now; it is not removed."""
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


def order_of(spec: "TaskSpec") -> tuple[float, float, float, str]:
    """Sort key: urgent tasks first, then the longest, for a long one that starts last ends last."""
    priority, deadline = spec.terms.order
    return priority, deadline, -_work(spec), spec.name


def _work(spec: "TaskSpec") -> float:
    """Images that tuning goes through, to which a task's time is proportional."""
    config = spec.config
    num_tunings = num_full_tunings(config, spec.search, spec.num_images, has_val=False)
    return num_tunings * max(spec.num_images * config.epochs, config.min_steps * config.batch_size)
