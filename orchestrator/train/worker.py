"""The loop of one worker: lease a task, run it, say how it went, until the ledger says that all is over.

Knows the ledger's interface and a function that runs a task; neither Ray nor torch.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.errors import ExecutionError
from orchestrator.train.failures import Failure, failure_of
from orchestrator.train.grants import Ended, Grant, Lease, Wait
from orchestrator.train.heartbeat import Heartbeat

if TYPE_CHECKING:
    import numpy as np

    from orchestrator.plan import TaskSpec

__all__ = [
    "Hooks",
    "LeaseLost",
    "LedgerClient",
    "Outcome",
    "RunnerFactory",
    "TaskRunner",
    "WorkerContext",
    "run_worker",
]

BEATS_PER_LEASE = 4


class LedgerClient(Protocol):
    """What a worker may ask of a ledger; see ``ledger.Ledger`` for what each call means."""

    def lease(self, worker: str) -> Grant:
        """Work for ``worker``."""
        ...

    def heartbeat(self, worker: str, task: str, attempt: int, epoch: Mapping[str, Any] | None = None) -> bool:
        """Prolong a lease; False if it is lost."""
        ...

    def complete(self, worker: str, task: str, attempt: int, data: Mapping[str, Any]) -> bool:
        """The task is published; False if the lease is lost."""
        ...

    def fail(self, worker: str, task: str, attempt: int, failure: Failure) -> bool:
        """The attempt failed; False if the lease is lost."""
        ...


class LeaseLost(Exception):  # noqa: N818 - reads as a fact; not an error of anybody's
    """The task is somebody else's by now: drop it without a word."""


class Hooks(Protocol):
    """What a running task calls."""

    def epoch(self, report: Mapping[str, Any]) -> None:
        """Report an epoch (fields of an ``epoch`` event). Raises ``LeaseLost``."""
        ...

    def check(self) -> None:
        """Raise ``LeaseLost`` if the lease is known to be lost: called before what others can see."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A task that is published.

    Attributes:
        digest: The artifact's.
        uri: Where the store keeps it.
        metrics: As in the artifact's card.
        created: False when somebody had published this task key before.
    """

    digest: str
    uri: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    created: bool = True


TaskRunner = Callable[["TaskSpec", Hooks], Outcome]


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What a worker process has at hand.

    Attributes:
        header: Of the backbone (``Backbone.to_arrays``).
        arrays: Its weights, read-only, shared with the other workers of this machine.
        store_url: Of the store of prompts.
        device: Where to tune, as torch names it.
        cache: Folder of decoded data on this node.
        cache_bytes: The most that it may hold.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, "np.ndarray"]
    store_url: str
    device: str
    cache: Path
    cache_bytes: int


RunnerFactory = Callable[[WorkerContext], TaskRunner]


def run_worker(
    ledger: LedgerClient,
    run_task: TaskRunner,
    *,
    worker: str,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Work until the ledger has nothing left.

    Args:
        ledger: Where tasks come from.
        run_task: Runs one task; what it raises is the task's failure, not the worker's.
        worker: Name of this worker, different from that of any other, dead or alive.
        sleep: Waits for some seconds.

    Returns:
        Number of tasks that this worker completed.

    Raises:
        ExecutionError: The ledger is out of reach, or a failure left this process unfit for more.
    """
    num_completed = 0
    while True:
        grant = ledger.lease(worker)
        if isinstance(grant, Ended):
            return num_completed
        if isinstance(grant, Wait):
            sleep(grant.seconds)
        else:
            num_completed += _Holder(ledger, worker, grant).run(run_task)


class _Holder:
    """A lease in the hands of its worker; gives the task its hooks."""

    def __init__(self, ledger: LedgerClient, worker: str, lease: Lease) -> None:
        self._ledger = ledger
        self._worker = worker
        self._lease = lease
        self._task = lease.spec.name
        self._pulse = Heartbeat(self._beat, lease.lease_s / BEATS_PER_LEASE)

    def epoch(self, report: Mapping[str, Any]) -> None:
        if not self._ledger.heartbeat(self._worker, self._task, self._lease.attempt, report):
            raise LeaseLost(self._task)

    def check(self) -> None:
        if self._pulse.is_lost:
            raise LeaseLost(self._task)

    def run(self, run_task: TaskRunner) -> bool:
        """Run the task to its end, whatever that is; True if it was completed."""
        try:
            with self._pulse:
                outcome = run_task(self._lease.spec, self)
        except LeaseLost:
            return False
        except ExecutionError:
            raise
        # A task must not take its neighbours down with it, whatever it raises: here it becomes a record.
        except Exception as error:
            self._fail(failure_of(error))
            return False
        return self._ledger.complete(self._worker, self._task, self._lease.attempt, asdict(outcome))

    def _fail(self, failure: Failure) -> None:
        self._ledger.fail(self._worker, self._task, self._lease.attempt, failure)
        if failure.poisons_worker:
            raise ExecutionError(
                f"worker {self._worker}: its device is unusable after task {self._task!r} failed "
                f"({failure.cause}); the pool starts a new one"
            )

    def _beat(self) -> bool:
        return self._ledger.heartbeat(self._worker, self._task, self._lease.attempt)
