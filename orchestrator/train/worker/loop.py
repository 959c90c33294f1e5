"""The loop of one worker: lease tasks, run them, say how it went, until the ledger says that all is over.

Each task runs in a thread of its own. One that says it has started, which is when it joined the pack that the
worker tunes, makes way for the next: so the data of one is loaded while others are tuned.

Knows the ledger's interface and a function that runs a task; neither Ray nor torch.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.errors import ExecutionError
from orchestrator.train.ledger.failures import Failure, failure_of
from orchestrator.train.ledger.grants import Ended, Grant, Lease
from orchestrator.train.worker.heartbeat import Heartbeat

if TYPE_CHECKING:
    import numpy as np

    from orchestrator.planning.spec import TaskSpec

__all__ = [
    "Hooks",
    "LeaseLost",
    "LedgerClient",
    "PublishedTask",
    "RunnerFactory",
    "TaskRunner",
    "WorkerContext",
    "run_worker",
]

BEATS_PER_LEASE = 4
# Each has a thread; far more than a device has memory for.
MAX_HELD = 256


class LedgerClient(Protocol):
    """What a worker may ask of a ledger; see ``ledger.Ledger`` for what each call means."""

    def lease(self, worker: str, held: Collection[str] = ()) -> Grant:
        """Work for ``worker``, beside the tasks that it holds."""
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


class LeaseLost(Exception):  # noqa: N818 - reads as a fact
    """The lease now belongs to another worker: the task is dropped without a report."""


class Hooks(Protocol):
    """What a running task calls, from any thread."""

    def started(self) -> None:
        """All is loaded, and the work has begun: the worker may take up another task beside it."""
        ...

    def epoch(self, report: Mapping[str, Any]) -> None:
        """Report an epoch (fields of an ``epoch`` event). Raises ``LeaseLost``."""
        ...

    def check(self) -> None:
        """Raise ``LeaseLost`` if the lease is known to be lost: called before what others can see."""
        ...


@dataclass(frozen=True, kw_only=True)
class PublishedTask:
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


TaskRunner = Callable[["TaskSpec", Hooks], PublishedTask]


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What a worker process has at hand.

    Attributes:
        header: Of the backbone (``Backbone.to_arrays``).
        arrays: Its weights, read-only, shared with the other workers of this machine.
        store_url: Of the store of prompts.
        device: Where to tune, as torch names it.
        max_fused: How many tasks may be tuned side by side; None for as many as fit and pay.
        memory_bytes: What their steps may take; None for what the device has free.
        cache: Folder of decoded data on this node.
        cache_bytes: The most that it may hold.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, "np.ndarray"]
    store_url: str
    device: str
    max_fused: int | None
    memory_bytes: int | None
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
    """Work until the ledger says that all is over.

    Args:
        ledger: Where tasks come from.
        run_task: Runs one task; called in a thread of its own. What it raises is the task's failure, not the
            worker's.
        worker: Name of this worker, different from that of any other, dead or alive.
        sleep: Waits for some seconds, when there is nothing to do.

    Returns:
        Number of tasks that this worker completed.

    Raises:
        ExecutionError: The ledger is out of reach, or a failure left this process unfit for more.
    """
    return _Worker(ledger, run_task, worker, sleep).work()


class _Worker:
    """Holds leases, and asks for more when it can take them."""

    def __init__(
        self, ledger: LedgerClient, run_task: TaskRunner, name: str, sleep: Callable[[float], None]
    ) -> None:
        self._ledger, self._run_task, self._name, self._sleep = ledger, run_task, name, sleep
        self._running: dict[Future[bool], _Holder] = {}
        self._changed = threading.Event()
        self._num_completed = 0

    def work(self) -> int:
        threads = ThreadPoolExecutor(MAX_HELD, thread_name_prefix="task")
        try:
            while True:
                if not self._may_ask():
                    self._wait_for_change(None)
                    continue
                grant = self._ledger.lease(self._name, [holder.task for holder in self._running.values()])
                if isinstance(grant, Ended):
                    while self._running:
                        self._wait_for_change(None)
                    return self._num_completed
                if isinstance(grant, Lease):
                    holder = _Holder(self._ledger, self._name, grant, self._changed.set)
                    future = threads.submit(holder.run, self._run_task)
                    self._running[future] = holder
                    future.add_done_callback(lambda _: self._changed.set())
                elif self._running:
                    self._wait_for_change(grant.seconds)
                else:
                    self._sleep(grant.seconds)
        finally:
            # Whoever has to leave does not wait for what others do: their leases run out.
            threads.shutdown(wait=False, cancel_futures=True)

    def _may_ask(self) -> bool:
        """Whether nobody is still loading."""
        return len(self._running) < MAX_HELD and all(holder.has_started for holder in self._running.values())

    def _wait_for_change(self, timeout_s: float | None) -> None:
        """Until a task has started or ended; takes note of those that ended."""
        self._changed.wait(timeout_s)
        self._changed.clear()
        for future in [future for future in self._running if future.done()]:
            del self._running[future]
            self._num_completed += future.result()


class _Holder:
    """A lease in the hands of its worker; gives the task its hooks.

    Attributes:
        task: Its name.
        has_started: Whether it has said so.
    """

    def __init__(
        self, ledger: LedgerClient, worker: str, lease: Lease, on_started: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._worker = worker
        self._lease = lease
        self._on_started = on_started
        self.task = lease.spec.name
        self.has_started = False
        self._pulse = Heartbeat(self._beat, lease.lease_s / BEATS_PER_LEASE)

    def started(self) -> None:
        self.has_started = True
        self._on_started()

    def epoch(self, report: Mapping[str, Any]) -> None:
        if not self._ledger.heartbeat(self._worker, self.task, self._lease.attempt, report):
            raise LeaseLost(self.task)

    def check(self) -> None:
        if self._pulse.is_lost:
            raise LeaseLost(self.task)

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
        return self._ledger.complete(self._worker, self.task, self._lease.attempt, asdict(outcome))

    def _fail(self, failure: Failure) -> None:
        self._ledger.fail(self._worker, self.task, self._lease.attempt, failure)
        if failure.poisons_worker:
            raise ExecutionError(
                f"worker {self._worker}: its device is unusable after task {self.task!r} failed "
                f"({failure.cause}); the pool starts a new one"
            )

    def _beat(self) -> bool:
        return self._ledger.heartbeat(self._worker, self.task, self._lease.attempt)
