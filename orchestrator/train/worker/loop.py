"""The loop of one worker: leases tasks, runs them and reports their outcomes until the run is over.

Each task runs in a thread of its own. Once it has joined the pack that the worker tunes, and reports that it
has started, the worker leases the next: so the data of one task is loaded while others are tuned.

A thread that hangs in a read cannot be ended. A worker with a task that makes no progress therefore says
where that task stands and leaves: its pool ends the process, and its tasks go to others. A thread whose lease
is lost while it still loads its data is left alone: it can hold up nothing.

Knows the ledger's client and a function that runs a task; imports neither Ray nor torch.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.errors import ExecutionError
from orchestrator.tracing import Attributes, Tracer, begin
from orchestrator.train.ledger.failures import Failure, failure_of
from orchestrator.train.ledger.grants import Ended, Lease, Phase
from orchestrator.train.worker.heartbeat import Heartbeat
from orchestrator.train.worker.progress import Progress
from ship.settings.view import MAX_PIXELS

if TYPE_CHECKING:
    import numpy as np

    from orchestrator.planning.spec import TaskSpec
    from orchestrator.train.ledger.actor import RayLedgerClient

__all__ = [
    "Hooks",
    "LeaseLost",
    "PublishedTask",
    "RunnerFactory",
    "TaskRunner",
    "WorkerContext",
    "run_worker",
]

BEATS_PER_LEASE = 4
# Each has a thread; far more than a device has memory for.
MAX_HELD = 256


class LeaseLost(Exception):  # noqa: N818 - reads as a fact
    """The lease now belongs to another worker: the task is dropped without a report."""


class Hooks(Protocol):
    """Callbacks of a running task, to be called from any thread."""

    def started(self) -> None:
        """Report that tuning has begun: the worker may lease another task beside it."""
        ...

    def epoch(self, report: Mapping[str, Any]) -> None:
        """Report an epoch (fields of an ``epoch`` event). Raises ``LeaseLost``."""
        ...

    def search(self, report: Mapping[str, Any]) -> None:
        """Report a step of the search (fields of a ``search`` event). Raises ``LeaseLost``."""
        ...

    def check(self) -> None:
        """Raise ``LeaseLost`` if the lease is known to be lost; called before each write to the store."""
        ...

    def enter(self, phase: Phase, count: Callable[[], int] = lambda: 0) -> None:
        """See ``Progress.enter``."""
        ...

    def doing(self, what: str) -> AbstractContextManager[None]:
        """See ``Progress.doing``."""
        ...


@dataclass(frozen=True, kw_only=True)
class PublishedTask:
    """A published task.

    Attributes:
        digest: Digest of the artifact.
        uri: URI of the artifact in the store.
        metrics: Metrics in the artifact's card.
        created: False if this task key was already published.
    """

    digest: str
    uri: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    created: bool = True


TaskRunner = Callable[["TaskSpec", Hooks], PublishedTask]


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """Resources of a worker process.

    Attributes:
        header: Header of the backbone (``Backbone.to_arrays``).
        arrays: Weights of the backbone, read-only, shared with the other workers of this machine.
        store_url: URL of the store of prompts.
        device: Torch device to tune on.
        max_fused: Limit on tasks that are tuned side by side; None for as many as fit and pay.
        memory_bytes: Memory for their steps; None for the free memory of the device.
        cache: Folder of decoded data on this node.
        cache_bytes: Limit on its size.
        max_pixels: Pixels of a picture; one with more is refused.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, "np.ndarray"]
    store_url: str
    device: str
    max_fused: int | None
    memory_bytes: int | None
    cache: Path
    cache_bytes: int
    max_pixels: int = MAX_PIXELS


RunnerFactory = Callable[[WorkerContext], TaskRunner]


def run_worker(
    ledger: "RayLedgerClient",
    run_task: TaskRunner,
    *,
    worker: str,
    sleep: Callable[[float], None] = time.sleep,
    tracer: Tracer | None = None,
) -> int:
    """Work until the ledger dismisses this worker.

    Args:
        ledger: Ledger that leases the tasks.
        run_task: Runs one task in a thread of its own. Its exceptions are failures of the task, not of the
            worker.
        worker: Unique name of this worker among all workers, dead or alive.
        sleep: Waits for some seconds while there is no task.
        tracer: Begins a span for each lease of a run that is traced.

    Returns:
        Number of tasks that this worker completed.

    Raises:
        ExecutionError: The ledger is out of reach, a task made no progress for too long, or a failure has
            made this process unusable.
    """
    return _Worker(ledger, run_task, worker, sleep, tracer).work()


class _Worker:
    """Holds leases, and asks for another when it has room."""

    def __init__(
        self,
        ledger: "RayLedgerClient",
        run_task: TaskRunner,
        name: str,
        sleep: Callable[[float], None],
        tracer: Tracer | None,
    ) -> None:
        self._ledger, self._run_task, self._name, self._sleep = ledger, run_task, name, sleep
        self._tracer = tracer
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
                grant = self._ledger.lease(self._name, [holder.task for holder in self._holding()])
                if isinstance(grant, Ended):
                    while self._holding():
                        self._wait_for_change(None)
                    return self._num_completed
                if isinstance(grant, Lease):
                    holder = _Holder(self._ledger, self._name, grant, self._changed.set)
                    future = threads.submit(holder.run, self._run_task, self._tracer)
                    self._running[future] = holder
                    future.add_done_callback(lambda _: self._changed.set())
                elif self._holding():
                    self._wait_for_change(grant.seconds)
                else:
                    self._sleep(grant.seconds)
        finally:
            # After an error the worker ends without waiting for its other tasks: their leases expire.
            threads.shutdown(wait=False, cancel_futures=True)

    def _may_ask(self) -> bool:
        """Whether every held task has started."""
        return len(self._running) < MAX_HELD and all(holder.has_started for holder in self._holding())

    def _holding(self) -> list["_Holder"]:
        """Tasks under way, without those whose leases were lost while they loaded."""
        return [holder for holder in self._running.values() if holder.has_started or not holder.is_lost]

    def _wait_for_change(self, timeout_s: float | None) -> None:
        """Wait until a task has started, ended or lost its lease; removes those that ended."""
        self._changed.wait(timeout_s)
        self._changed.clear()
        for future in [future for future in self._running if future.done()]:
            del self._running[future]
            self._num_completed += future.result()
        for holder in self._running.values():
            holder.leave_if_stuck()


class _Holder:
    """A lease held by a worker; the hooks of its task.

    Attributes:
        task: Name of the task.
        has_started: Whether the task has reported that it started.
    """

    def __init__(
        self, ledger: "RayLedgerClient", worker: str, lease: Lease, on_change: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._worker = worker
        self._lease = lease
        self._on_change = on_change
        self.task = lease.spec.name
        self.has_started = False
        self._progress = Progress()
        self._pulse = Heartbeat(
            self._beat, lease.lease_s / BEATS_PER_LEASE, self._progress, lease.stall, on_change
        )
        self.enter, self.doing = self._progress.enter, self._progress.doing

    @property
    def is_lost(self) -> bool:
        """Whether the lease is known to be lost."""
        return self._pulse.is_lost

    def leave_if_stuck(self) -> None:
        """Report a task without progress, and end this worker.

        Raises:
            ExecutionError: Where the task stands.
        """
        if (stall := self._pulse.stall) is not None:
            is_shared = self._progress.phase == "step"
            self._ledger.stall(self._worker, self.task, self._lease.attempt, stall, is_shared)
            raise ExecutionError(
                f"worker {self._worker} leaves: task {self.task!r} made {stall}; the pool starts a new worker"
            )

    def started(self) -> None:
        self.has_started = True
        self._on_change()

    def epoch(self, report: Mapping[str, Any]) -> None:
        if not self._ledger.heartbeat(self._worker, self.task, self._lease.attempt, report):
            raise LeaseLost(self.task)

    def search(self, report: Mapping[str, Any]) -> None:
        self.epoch(report)

    def check(self) -> None:
        if self._pulse.is_lost:
            raise LeaseLost(self.task)

    def run(self, run_task: TaskRunner, tracer: Tracer | None = None) -> bool:
        """Run the task and report its outcome; True if it was completed."""
        lease = self._lease
        attributes: Attributes = {
            "ship.task": self.task,
            "ship.attempt": lease.attempt,
            "ship.worker": self._worker,
        }
        try:
            with (
                begin(tracer if lease.trace else None, "task", lease.trace, attributes),
                self._pulse,
            ):
                outcome = run_task(lease.spec, self)
        except LeaseLost:
            return False
        except ExecutionError:
            raise
        # A boundary: any other exception is a failure of this task alone.
        except Exception as error:
            self._fail(failure_of(error))
            return False
        return self._ledger.complete(self._worker, self.task, self._lease.attempt, asdict(outcome))

    def _fail(self, failure: Failure) -> None:
        self._ledger.fail(self._worker, self.task, self._lease.attempt, failure)
        if failure.poisons_worker:
            raise ExecutionError(
                f"worker {self._worker}: its device is unusable after task {self.task!r} failed "
                f"({failure.cause}); the pool starts a new worker"
            )

    def _beat(self) -> bool:
        return self._ledger.heartbeat(self._worker, self.task, self._lease.attempt)
