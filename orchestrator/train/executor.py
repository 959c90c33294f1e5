"""The driver of a run: starts ledger and pool, follows them, and ends both cleanly."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from orchestrator.cluster.session import ray_session
from orchestrator.cluster.signals import catch_interruption
from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.manifest.model import PoolSettings
from orchestrator.private_files import make_private_folder
from orchestrator.settings import Settings
from orchestrator.train.ledger.actor import RayLedger, start_actor
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.status import RunStatus, TaskStatus
from orchestrator.train.pool.actors import ActorPool
from orchestrator.train.pool.base import Pool
from orchestrator.train.pool.ray_train import TrainPool, set_train_defaults
from orchestrator.train.pool.seat import SeatConfig
from orchestrator.train.pool.size import choose_size
from orchestrator.train.run.files import RunRequest
from orchestrator.train.worker.loop import RunnerFactory
from orchestrator.train.worker.task_runner import make_task_runner

if TYPE_CHECKING:
    import threading

    from orchestrator.cluster.session import Session
    from orchestrator.planning.spec import TaskSpec
    from ship.backbone import Backbone

__all__ = ["Callbacks", "Follower", "RunOptions", "RunSummary", "name_run", "run_tasks"]

POLL_S = 0.5
# Workers drop their tasks at the next epoch or heartbeat; beyond this they are ended with their Ray.
DRAIN_S = 15.0
MAX_STARTS_IN_VAIN = 5


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Result of a run.

    Attributes:
        tasks: Last status of every task.
        is_interrupted: Whether a signal or a request stopped it; the same command resumes unfinished tasks.
    """

    tasks: tuple[TaskStatus, ...]
    is_interrupted: bool = False

    @property
    def done(self) -> tuple[str, ...]:
        """Names of published tasks."""
        return tuple(status.task for status in self.tasks if status.state == "done")

    @property
    def failed(self) -> dict[str, str]:
        """Cause of failure by task."""
        return {status.task: str(status.cause) for status in self.tasks if status.state == "failed"}

    @property
    def cancelled(self) -> tuple[str, ...]:
        """Names of tasks that were cancelled on request."""
        return tuple(status.task for status in self.tasks if status.state == "cancelled")

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Names of tasks that an interruption left."""
        return tuple(status.task for status in self.tasks if not status.has_ended)


def name_run() -> str:
    """A unique name for a run."""
    return f"tune-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that the driver calls about twice a second, in its own thread.

    Attributes:
        on_events: Gets each event once, in order; none if there are none. An exception ends the run.
        on_progress: Gets the status of all tasks.
        requests: Requests of other terminals, each with a function that takes the tasks which it changed.
        on_stop: Called in the handler of the first signal; may use no buffered stream and no lock.
    """

    on_events: Callable[[Sequence[Event]], None] = lambda events: None
    on_progress: Callable[[RunStatus], None] = lambda status: None
    requests: Callable[[], Iterable[tuple[RunRequest, Callable[[Sequence[str]], None]]]] = lambda: ()
    on_stop: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Name, pool and policies of a run.

    Attributes:
        run: Name of the run.
        pool: Size and executor of the pool; by default a worker for each GPU, else for each CPU.
        policy: Lease time and retry budgets of the ledger.
        make_runner: Builds each worker's task runner; importable on every node.
    """

    run: str = field(default_factory=name_run)
    pool: PoolSettings = field(default_factory=PoolSettings)
    policy: LedgerPolicy = field(default_factory=LedgerPolicy)
    make_runner: RunnerFactory = make_task_runner


def run_tasks(
    specs: Sequence["TaskSpec"],
    backbone: "Backbone",
    settings: Settings,
    options: RunOptions,
    callbacks: Callbacks,
) -> RunSummary:
    """Tune and publish ``specs`` on a pool of workers.

    Args:
        specs: The tasks.
        backbone: The backbone that they share.
        settings: The store, the Ray cluster and the folder for local files.
        options: Name, pool and policies of the run.
        callbacks: Listeners and requests.

    Raises:
        ClusterError: Ray cannot be joined or started.
        ExecutionError: The pool cannot go on. Published tasks stay published.
    """
    if not specs:
        return RunSummary(tasks=())
    set_train_defaults()
    min_cpus = options.pool.max_workers or options.pool.min_workers
    logs = settings.home / "logs" / options.run
    with (
        ray_session(settings.ray_address, min_cpus=min_cpus, logs=logs) as session,
        catch_interruption(callbacks.on_stop) as interruption,
    ):
        workers = _make_pool(session, len(specs), backbone, settings, options)
        ledger = RayLedger(start_actor(options.run), specs, options.policy, workers.release)
        try:
            workers.start()
            summary = Follower(ledger, workers, callbacks).follow(interruption)
        finally:
            ledger.end()
            shutil.rmtree(_train_folder(settings) / options.run, ignore_errors=True)
        session.keep_logs = bool(summary.failed)
        return summary


def _make_pool(
    session: "Session", num_tasks: int, backbone: "Backbone", settings: Settings, options: RunOptions
) -> Pool:
    size = choose_size(session, num_tasks, options.pool)
    config = SeatConfig(
        run=options.run,
        backbone=[ray.put(backbone.to_arrays())],
        store_url=_absolute(settings.store),
        make_runner=options.make_runner,
        num_threads=size.cpus_per_worker,
        max_fused=options.pool.max_fused,
        num_sharers=size.num_sharers,
        cache=settings.cache,
        cache_bytes=settings.cache_bytes,
        max_pixels=settings.max_pixels,
    )
    if options.pool.executor == "actors":
        return ActorPool(config, size)
    make_private_folder(_train_folder(settings))
    return TrainPool(config, size, _train_folder(settings))


def _train_folder(settings: Settings) -> Path:
    return settings.home / "train"


class Follower:
    """The driver's loop: polls the ledger, passes events on and grants requests until the run has ended."""

    def __init__(self, ledger: RayLedger, pool: Pool, callbacks: Callbacks, poll_s: float = POLL_S) -> None:
        self._ledger, self._pool, self._callbacks, self._poll_s = ledger, pool, callbacks, poll_s

    def follow(self, interruption: "threading.Event") -> RunSummary:
        """Follow the run until all tasks have ended, or the first signal."""
        try:
            while not self._poll_once(interruption) and not interruption.wait(self._poll_s):
                pass
        finally:
            self._ledger.close()
            self._pool.wait(DRAIN_S)
        # Workers may complete tasks while they are told to stop.
        last = self._poll_to_end()
        return RunSummary(tasks=last.tasks, is_interrupted=interruption.is_set() and not last.all_ended)

    def _poll_once(self, interruption: "threading.Event") -> bool:
        """Whether all tasks have ended."""
        was_running = self._pool.is_running
        run_status = self._poll()
        if not run_status.all_ended:
            self._check(run_status, was_running)
            self._grant_requests([status.task for status in run_status.tasks], interruption)
        return run_status.all_ended

    def _grant_requests(self, known: Sequence[str], interruption: "threading.Event") -> None:
        for request, answer in self._callbacks.requests():
            wanted = set(request.tasks)
            tasks = [task for task in known if not wanted or task in wanted]
            if request.kind == "stop":
                interruption.set()
                answer(())
            else:
                answer(self._ledger.cancel(tasks) if request.kind == "cancel" else self._ledger.retry(tasks))

    def _poll(self) -> RunStatus:
        """Pass on one page of events and the status of all tasks."""
        events, run_status = self._ledger.poll()
        self._callbacks.on_events(events)
        self._callbacks.on_progress(run_status)
        return run_status

    def _poll_to_end(self) -> RunStatus:
        """Pass on all events, then the status that they led to."""
        while True:
            events, run_status = self._ledger.poll()
            self._callbacks.on_events(events)
            if not events:
                self._callbacks.on_progress(run_status)
                return run_status

    def _check(self, run_status: RunStatus, was_running: bool) -> None:
        """Raise if the pool cannot finish the run."""
        counts = run_status.counts()
        left = counts["pending"] + counts["leased"]
        advice = "published tasks stay published; run the same command to resume"
        if not was_running:
            raise ExecutionError(
                f"the worker pool ended with {left} of {len(run_status.tasks)} tasks left: "
                f"{self._pool.error or 'no cause given'}; {advice}"
            )
        if run_status.starts_in_vain > MAX_STARTS_IN_VAIN:
            raise ExecutionError(
                f"the worker pool died {run_status.starts_in_vain} times before it took up work, with {left} "
                f"tasks left: {run_status.last_crash or 'no cause given'}; {advice}"
            )


def _absolute(store_url: str) -> str:
    """The store as an absolute path, for workers run in folders of their own; a URL stays as it is."""
    return store_url if "://" in store_url else str(Path(store_url).expanduser().resolve())
