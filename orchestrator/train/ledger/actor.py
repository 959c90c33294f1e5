"""The ledger as a Ray actor, with the clients of driver and workers.

This module decides only whether a call got through; its meaning is the ledger's. Ray may restart the actor at
any time, and it is then blank: the driver, which polls it anyway, loads it again with the status that it saw
last, and workers wait until it has. Completions that were lost in between are found in the store.
"""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import OwnerDiedError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.tracing import current
from orchestrator.train.ledger.awake_clock import AwakeClock
from orchestrator.train.ledger.failures import Failure
from orchestrator.train.ledger.grants import Grant, LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.ledger.status import RunStatus

if TYPE_CHECKING:
    from orchestrator.planning.spec import TaskSpec

__all__ = ["LedgerActor", "RayLedger", "RayLedgerClient", "start_actor"]

ACTOR_NAME = "ledger"
RETRY_S = 0.5
PATIENCE_S = 120.0
ORPHANED_AFTER_S = 900.0
_LIFELINE = "lifeline"


class LedgerActor:
    """A ledger in a process of its own. Calls come one at a time, so it needs no lock.

    Args:
        orphaned_after_s: Seconds without a call after which it ends itself, for its driver may have ended
            before it was loaded: being detached, it outlives the driver.
    """

    def __init__(self, orphaned_after_s: float = ORPHANED_AFTER_S) -> None:
        self._ledger: Ledger | None = None
        self._incarnation = uuid.uuid4().hex
        self._called_s = time.monotonic()
        threading.Thread(target=self._watch, args=(orphaned_after_s,), daemon=True).start()

    @ray.method(concurrency_group=_LIFELINE)  # type: ignore[untyped-decorator]  # Ray is read without types
    def never(self) -> None:
        """Never return. The caller owns the answer: to wait for it fails when the caller's process ends."""
        threading.Event().wait()

    def load(
        self,
        specs: Sequence["TaskSpec"],
        policy: LedgerPolicy,
        earlier: RunStatus | None,
        num_lost: int,
        driver: "Sequence[ray.ObjectRef[None]]",
        release: Callable[[], None],
        trace: str | None = None,
    ) -> bool:
        """Load a blank ledger; a loaded one stays as it is. Always True.

        Args:
            specs: Tasks of the run.
            policy: Time-outs and budgets.
            earlier: Status of all tasks that the driver saw last.
            num_lost: Ledgers of this run that were lost before.
            driver: The answer to the driver's call of ``never``, in a list: a bare reference is waited for.
            release: Called when the driver has ended without ending the run; then the actor ends itself.
            trace: See ``Lease``.
        """
        if self._ledger is None:
            clock = AwakeClock(time.monotonic)
            self._ledger = Ledger(specs, policy, clock, earlier, num_lost, trace=trace)
            threading.Thread(target=self._outlive, args=(driver[0], release), daemon=True).start()
        return True

    def call(self, method: str, *args: Any) -> tuple[str, Any] | None:
        """Call a method of the ledger: this actor's incarnation and the answer; None while it is blank."""
        self._called_s = time.monotonic()
        if self._ledger is None:
            return None
        return self._incarnation, getattr(self._ledger, method)(*args)

    def poll(self, since: int | None) -> tuple[Sequence[Event], int, RunStatus] | None:
        """``read`` and ``status`` of one moment, of the tasks that changed ``since``; None while blank."""
        self._called_s = time.monotonic()
        if self._ledger is None:
            return None
        events, following = self._ledger.read(since or 0)
        return events, following, self._ledger.status(since)

    def _outlive(self, driver: "ray.ObjectRef[None]", release: Callable[[], None]) -> None:
        me = ray.get_runtime_context().current_actor
        # An error of another kind is this process's own end.
        with suppress(RayActorError):
            try:
                ray.get(driver)
            except OwnerDiedError:
                release()
                ray.kill(me, no_restart=True)

    def _watch(self, orphaned_after_s: float) -> None:
        me = ray.get_runtime_context().current_actor
        while time.monotonic() - self._called_s < orphaned_after_s:
            time.sleep(min(orphaned_after_s / 10, 30.0))
        ray.kill(me, no_restart=True)


def _ask(send: Callable[[], Any], get: Callable[[Any], Any] = ray.get, patience_s: float = PATIENCE_S) -> Any:
    """The actor's answer; waits while it is restarted or blank."""
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            answer = get(send())
        except RayActorError as error:
            answer, problem = None, str(error)
        else:
            problem = "it was restarted and not loaded again"
        if answer is not None:
            return answer
        if time.monotonic() > deadline_s:
            raise ExecutionError(
                f"the ledger did not answer for {patience_s:g} s: {problem}; run the same command to resume"
            )
        time.sleep(RETRY_S)


class RayLedgerClient:
    """The ledger's client in a worker or in the pool's controller.

    Args:
        run: Name of the run, which is the actor's namespace.
    """

    def __init__(self, run: str) -> None:
        try:
            self._actor = ray.get_actor(ACTOR_NAME, namespace=run)
        except ValueError as error:
            raise ExecutionError(f"run {run!r} has no ledger: its driver has ended") from error
        self._seat: tuple[str, int, int] | None = None
        self._incarnation: str | None = None

    def join(self, worker: str, seat: int, num_seats: int) -> None:
        """See ``Ledger.join``. Repeated whenever the actor has been restarted."""
        self._seat = (worker, seat, num_seats)
        self._join(self._seat)

    def crashed(self, seat: int, cause: str, with_node: bool = False) -> None:
        """See ``Ledger.crashed``."""
        self._call("crashed", seat, cause, with_node)

    def lease(self, worker: str, held: Collection[str] = ()) -> Grant:
        """See ``Ledger.lease``."""
        grant: Grant = self._call("lease", worker, held)
        return grant

    def heartbeat(self, worker: str, task: str, attempt: int, epoch: Mapping[str, Any] | None = None) -> bool:
        """See ``Ledger.heartbeat``."""
        return bool(self._call("heartbeat", worker, task, attempt, epoch))

    def complete(self, worker: str, task: str, attempt: int, data: Mapping[str, Any]) -> bool:
        """See ``Ledger.complete``."""
        return bool(self._call("complete", worker, task, attempt, data))

    def fail(self, worker: str, task: str, attempt: int, failure: Failure) -> bool:
        """See ``Ledger.fail``."""
        return bool(self._call("fail", worker, task, attempt, failure))

    def stall(self, worker: str, task: str, attempt: int, cause: str, is_shared: bool = False) -> None:
        """See ``Ledger.stall``."""
        self._call("stall", worker, task, attempt, cause, is_shared)

    def _call(self, method: str, *args: Any) -> Any:
        incarnation, answer = _ask(lambda: self._actor.call.remote(method, *args))
        if self._seat is not None and incarnation != self._incarnation:
            # The driver may have loaded it with a status from before this worker joined.
            self._join(self._seat)
        return answer

    def _join(self, seat: tuple[str, int, int]) -> None:
        self._incarnation, _ = _ask(lambda: self._actor.call.remote("join", *seat))


def start_actor(run: str) -> Any:
    """Start the blank ledger of a run on the driver's node; a worker's node may go at any time."""
    node = ray.get_runtime_context().get_node_id()
    return (
        # A thread of its own for the call that never returns; the others come one at a time.
        ray.remote(concurrency_groups={_LIFELINE: 1})(LedgerActor)
        .options(
            name=ACTOR_NAME,
            namespace=run,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote()
    )


class RayLedger:
    """The ledger's client in the driver: loads the actor, polls it, and loads it again after a restart.

    Args:
        actor: Handle of the blank ``LedgerActor``.
        specs: Tasks of the run.
        policy: Time-outs and budgets.
        release: Frees what outlives the driver; importable on the actor's node.
        get: Gets the answer to a call of the actor.
    """

    def __init__(
        self,
        actor: Any,
        specs: Sequence["TaskSpec"],
        policy: LedgerPolicy,
        release: Callable[[], None],
        get: Callable[[Any], Any] = ray.get,
    ) -> None:
        self._actor, self._specs, self._policy, self._get = actor, specs, policy, get
        self._release = release
        driver = current()
        self._trace = None if driver is None else driver.traceparent
        # Position in the log of events up to which `_latest` is known; None for none.
        self._since: int | None = None
        self._num_loads = 0
        self._latest: RunStatus | None = None
        # Not waited for: the actor takes calls in their order.
        self._send_load()

    def poll(self) -> tuple[Sequence[Event], RunStatus]:
        """Events since the last poll, which are thereby acknowledged, and the status of all tasks."""
        events, following, changed = self._answer(lambda: self._actor.poll.remote(self._since))
        self._latest = _merge(None if self._since is None else self._latest, changed)
        self._since = following
        return events, self._latest

    def cancel(self, tasks: Sequence[str]) -> list[str]:
        """See ``Ledger.cancel``."""
        return list(self._call("cancel", tasks))

    def retry(self, tasks: Sequence[str]) -> list[str]:
        """See ``Ledger.retry``."""
        return list(self._call("retry", tasks))

    def close(self) -> None:
        """Have all workers drop their tasks and end."""
        self._call("close")

    def end(self) -> None:
        """End the actor."""
        ray.kill(self._actor, no_restart=True)

    def _call(self, method: str, *args: Any) -> Any:
        _, answer = self._answer(lambda: self._actor.call.remote(method, *args))
        return answer

    def _answer(self, send: Callable[[], Any]) -> Any:
        """The actor's answer, which is loaded again whenever it was restarted: no other process does that."""
        while True:
            try:
                answer = self._get(send())
            except RayActorError:
                answer = None
            if answer is not None:
                return answer
            self._since = None
            _ask(self._send_load, self._get)

    def _send_load(self) -> Any:
        self._num_loads += 1
        num_lost, driver = self._num_loads - 1, [self._actor.never.remote()]
        return self._actor.load.remote(
            self._specs, self._policy, self._latest, num_lost, driver, self._release, self._trace
        )


def _merge(before: RunStatus | None, changed: RunStatus) -> RunStatus:
    """The status of all tasks, from their status before and those that have changed since."""
    if before is None:
        return changed
    if not changed.tasks:
        return replace(changed, tasks=before.tasks)
    tasks = {status.task: status for status in (*before.tasks, *changed.tasks)}
    return replace(changed, tasks=tuple(tasks.values()))
