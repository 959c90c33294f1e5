"""Runs a batch of tasks from the driver's side: starts pool and ledger, follows them, ends in good order."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from orchestrator.cluster.session import ray_session
from orchestrator.cluster.signals import catch_interruption
from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.manifest.model import PoolSettings
from orchestrator.settings import Settings
from orchestrator.train.ledger.actor import RayLedger
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.status import Snapshot, TaskStatus
from orchestrator.train.pool.actors import ActorPool
from orchestrator.train.pool.base import Pool
from orchestrator.train.pool.ray_train import TrainPool, set_train_defaults
from orchestrator.train.pool.seat import SeatConfig
from orchestrator.train.pool.size import choose_size
from orchestrator.train.run_folder import RunRequest
from orchestrator.train.worker.loop import RunnerFactory
from orchestrator.train.worker.task_runner import make_task_runner

if TYPE_CHECKING:
    import threading

    from orchestrator.planning.plan import TaskSpec
    from ship.backbone import Backbone

__all__ = ["Requests", "RunSummary", "name_run", "run_tasks"]

Requests = Callable[[], Iterable[tuple[RunRequest, Callable[[Sequence[str]], None]]]]

POLL_S = 0.5
# Workers drop their tasks at the next epoch or heartbeat; beyond this they are ended with their Ray.
DRAIN_S = 15.0
MAX_STARTS_IN_VAIN = 5


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """How a run ended.

    Attributes:
        tasks: Every task's last state.
        is_interrupted: Whether it was stopped by a signal; tasks that are pending or leased can be taken
            up by running the same again.
    """

    tasks: tuple[TaskStatus, ...]
    is_interrupted: bool = False

    @property
    def done(self) -> tuple[str, ...]:
        """Names of tasks that are published."""
        return tuple(status.task for status in self.tasks if status.state == "done")

    @property
    def failed(self) -> dict[str, str]:
        """Task to cause."""
        return {status.task: str(status.cause) for status in self.tasks if status.state == "failed"}

    @property
    def cancelled(self) -> tuple[str, ...]:
        """Names of tasks that somebody asked to leave."""
        return tuple(status.task for status in self.tasks if status.state == "cancelled")

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Names of tasks that an interruption left."""
        return tuple(status.task for status in self.tasks if not status.has_ended)


def run_tasks(
    specs: Sequence["TaskSpec"],
    *,
    backbone: "Backbone",
    store_url: str,
    settings: Settings,
    pool: PoolSettings | None = None,
    on_events: Callable[[Sequence[Event]], None] = lambda events: None,
    on_progress: Callable[[Snapshot], None] = lambda snapshot: None,
    requests: Requests = lambda: (),
    run: str | None = None,
    make_runner: RunnerFactory = make_task_runner,
    policy: LedgerPolicy | None = None,
) -> RunSummary:
    """Tune and publish ``specs`` on a pool of workers.

    Args:
        specs: The tasks.
        backbone: That they share.
        store_url: Of the store of prompts; a path may be relative.
        settings: Which Ray, and where local files go.
        pool: How workers are made up; by default one a GPU, or a CPU where there are none.
        on_events: Gets each event once, in order, in this thread, about twice a second; none if there are
            none. What it raises ends the run.
        on_progress: Gets a snapshot about twice a second, in this thread.
        requests: Asked about twice a second what somebody wants of the run; each comes with a function to be
            told which tasks that changed.
        run: Its name, if it has one already.
        make_runner: Builds each worker's task runner.
        policy: Time-outs and budgets of the ledger.

    Raises:
        ClusterError: Ray cannot be joined or started.
        ExecutionError: The pool died for good. What was published stays.
    """
    if not specs:
        return RunSummary(tasks=())
    run, pool = run or name_run(), pool or PoolSettings()
    folder = settings.home / "train"
    set_train_defaults()
    with (
        ray_session(
            settings.ray_address,
            min_cpus=pool.max_workers or pool.min_workers,
            logs=settings.home / "logs" / run,
        ) as session,
        catch_interruption() as interruption,
    ):
        ledger = RayLedger(run, specs, policy or LedgerPolicy())
        try:
            size = choose_size(session, len(specs), pool)
            config = SeatConfig(
                run=run,
                backbone=[ray.put(backbone.to_arrays())],
                store_url=_absolute(store_url),
                make_runner=make_runner,
                num_threads=size.cpus_per_worker,
                max_fused=pool.max_fused,
                num_sharers=size.num_sharers,
                cache=settings.cache,
                cache_bytes=settings.cache_bytes,
            )
            workers: Pool = (
                ActorPool(config, size) if pool.executor == "actors" else TrainPool(config, size, folder)
            )
            workers.start()
            follower = Follower(ledger, workers, on_events, on_progress, requests)
            summary = follower.follow(interruption)
        finally:
            ledger.end()
            shutil.rmtree(folder / run, ignore_errors=True)
        session.keep_logs = bool(summary.failed)
        return summary


def name_run() -> str:
    """A name that no other run has."""
    return f"tune-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


class Follower:
    """Passes on what the ledger says until nothing more will happen."""

    def __init__(
        self,
        ledger: RayLedger,
        pool: Pool,
        on_events: Callable[[Sequence[Event]], None],
        on_progress: Callable[[Snapshot], None],
        requests: Requests = lambda: (),
    ) -> None:
        self._requests = requests
        self._ledger = ledger
        self._pool = pool
        self._on_events = on_events
        self._on_progress = on_progress

    def follow(self, interruption: "threading.Event") -> RunSummary:
        """Until all tasks have ended, or the first signal."""
        try:
            while not self._poll_once(interruption) and not interruption.wait(POLL_S):
                pass
        finally:
            self._ledger.close()
            self._pool.wait(DRAIN_S)
        # What workers completed while they were told to stop.
        last = self._poll_to_end()
        return RunSummary(tasks=last.tasks, is_interrupted=interruption.is_set() and not last.all_ended)

    def _poll_once(self, interruption: "threading.Event") -> bool:
        """Whether all tasks have ended."""
        was_running = self._pool.is_running
        snapshot = self._poll()
        if not snapshot.all_ended:
            self._check(snapshot, was_running)
            self._grant_requests([status.task for status in snapshot.tasks], interruption)
        return snapshot.all_ended

    def _grant_requests(self, known: Sequence[str], interruption: "threading.Event") -> None:
        for request, answer in self._requests():
            wanted = set(request.tasks)
            tasks = [task for task in known if not wanted or task in wanted]
            if request.kind == "stop":
                interruption.set()
                answer(())
            else:
                answer(self._ledger.cancel(tasks) if request.kind == "cancel" else self._ledger.retry(tasks))

    def _poll(self) -> Snapshot:
        """Pass on what has happened, as far as it is told at once, and how all tasks stand."""
        events, snapshot = self._ledger.poll()
        self._on_events(events)
        self._on_progress(snapshot)
        return snapshot

    def _poll_to_end(self) -> Snapshot:
        """Pass on all events there are, then the state that they led to."""
        while True:
            events, snapshot = self._ledger.poll()
            self._on_events(events)
            if not events:
                self._on_progress(snapshot)
                return snapshot

    def _check(self, snapshot: Snapshot, was_running: bool) -> None:
        """Raise if the pool will get no further."""
        counts = snapshot.counts()
        left = counts["pending"] + counts["leased"]
        advice = "what is published stays: run the same command again to go on"
        if not was_running:
            raise ExecutionError(
                f"the worker pool ended with {left} of {len(snapshot.tasks)} tasks left: "
                f"{self._pool.error or 'no cause given'}; {advice}"
            )
        if snapshot.starts_in_vain > MAX_STARTS_IN_VAIN:
            raise ExecutionError(
                f"the worker pool died {snapshot.starts_in_vain} times before it took up work, with {left} "
                f"tasks left: {snapshot.last_crash or 'no cause given'}; {advice}"
            )


def _absolute(store_url: str) -> str:
    """Workers run in folders of their own, so a relative path would lead each somewhere else."""
    return store_url if "://" in store_url else str(Path(store_url).expanduser().resolve())
