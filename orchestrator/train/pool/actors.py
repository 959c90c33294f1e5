"""The worker pool as plain Ray actors: a dead one is replaced, and the others work on.

Ray Train restarts its whole group when one worker dies; here only the dead one's tasks are retried. An actor
for which the cluster has no room waits without holding up the others.
"""

from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.errors import ExecutionError
from orchestrator.train.ledger.actor import RayLedgerClient
from orchestrator.train.pool.base import Pool
from orchestrator.train.pool.crashes import cause_of, is_node_death
from orchestrator.train.pool.seat import SeatConfig, work
from orchestrator.train.pool.size import PoolSize

__all__ = ["ActorPool"]

LOOK_EVERY_S = 0.5
# Failed starts of one seat in a row, such as on a node without the code.
MAX_START_FAILURES = 5


class _Seat:
    """Actor of one worker process."""

    def start(self) -> None:
        """Return once the process is up."""

    def work(self, config: SeatConfig, seat: int, num_seats: int) -> None:
        """Work until the ledger dismisses the worker."""
        work(config, seat, num_seats, "cuda" if ray.get_gpu_ids() else "cpu")


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A pending call: a process that starts, or one that works."""

    seat: int
    actor: Any
    is_start: bool


class ActorPool(Pool):
    """A pool of actors.

    Args:
        config: Settings of every process.
        size: Number of processes and their resources.
    """

    def __init__(self, config: SeatConfig, size: PoolSize) -> None:
        super().__init__()
        self._config, self._size = config, size
        resources: dict[str, Any] = {"num_cpus": size.cpus_per_worker, "num_gpus": 1 if size.use_gpu else 0}
        self._actor_class = ray.remote(_Seat).options(max_restarts=0, **resources)
        self._calls: dict[Any, _Call] = {}
        self._failures = dict.fromkeys(range(size.num_workers), 0)
        # Processes that are up and wait for the minimum of workers; None once it was reached.
        self._held_back: list[_Call] | None = []

    def _look_after(self) -> None:
        ledger = RayLedgerClient(self._config.run)
        for seat in self._failures:
            self._fill(seat)
        while self._calls:
            done, _ = ray.wait(list(self._calls), num_returns=1, timeout=LOOK_EVERY_S)
            for reference in done:
                call = self._calls.pop(reference)
                try:
                    ray.get(reference)
                except RayError as error:
                    ray.kill(call.actor)
                    self._note(ledger, call, error)
                    self._fill(call.seat)
                else:
                    self._go_on(call)

    def _fill(self, seat: int) -> None:
        actor = self._actor_class.remote()
        self._calls[actor.start.remote()] = _Call(seat=seat, actor=actor, is_start=True)

    def _go_on(self, call: "_Call") -> None:
        if not call.is_start:
            # The run is over, also for processes that wait for this one's resources.
            for idle in (*self._take_starting(), call):
                ray.kill(idle.actor)
            return
        self._failures[call.seat] = 0
        if self._held_back is None:
            self._set_to_work(call)
            return
        self._held_back.append(call)
        if len(self._held_back) >= self._size.min_workers:
            ready, self._held_back = self._held_back, None
            for held_back in ready:
                self._set_to_work(held_back)

    def _set_to_work(self, call: "_Call") -> None:
        reference = call.actor.work.remote(self._config, call.seat, self._size.num_workers)
        self._calls[reference] = replace(call, is_start=False)

    def _take_starting(self) -> list["_Call"]:
        return [self._calls.pop(reference) for reference, call in list(self._calls.items()) if call.is_start]

    def _note(self, ledger: RayLedgerClient, call: "_Call", error: RayError) -> None:
        """Raise if the seat cannot be filled; else report the crash to the ledger."""
        if call.is_start:
            self._failures[call.seat] += 1
            if self._failures[call.seat] >= MAX_START_FAILURES:
                raise ExecutionError(
                    f"a worker could not be started {MAX_START_FAILURES} times in a row: {cause_of(error)}; "
                    "check that its node has the same packages as this one"
                )
        # The preemption of a node is no fault of its tasks.
        elif not getattr(error, "preempted", False):
            ledger.crashed(call.seat, cause_of(error), is_node_death(error))
