"""Makes a ledger reachable for a pool: an actor around it, and the callers' ends.

Whether a call got through is all that is decided here; what it means is the ledger's business. The actor may
be restarted by Ray at any time and is then blank: the driver, which polls it anyway, loads it again with what
it last saw, and workers wait until it has. What was lost in between is found again in the store.
"""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.train.ledger.failures import Failure
from orchestrator.train.ledger.grants import Grant, LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.ledger.status import RunStatus

if TYPE_CHECKING:
    from orchestrator.planning.plan import TaskSpec

__all__ = ["LedgerActor", "RayLedger", "RayLedgerClient"]

ACTOR_NAME = "ledger"
RETRY_S = 0.5
PATIENCE_S = 120.0
ORPHANED_AFTER_S = 900.0

_BLANK = "blank: not loaded yet"


class LedgerActor:
    """A ledger in a process of its own. Calls come one at a time, so it needs no lock.

    Args:
        orphaned_after_s: Being detached, it outlives a driver that was killed; when nobody has called for
            this long, it ends itself.
    """

    def __init__(self, orphaned_after_s: float = ORPHANED_AFTER_S) -> None:
        self._ledger: Ledger | None = None
        self._incarnation = uuid.uuid4().hex
        self._called_s = time.monotonic()
        threading.Thread(target=self._watch, args=(orphaned_after_s,), daemon=True).start()

    def load(
        self, specs: Sequence["TaskSpec"], policy: LedgerPolicy, earlier: RunStatus | None, num_lost: int
    ) -> None:
        """Fill a blank ledger; one that is filled stays as it is."""
        if self._ledger is None:
            self._ledger = Ledger(specs, policy, time.time, earlier, num_lost)

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the ledger, if there is one; tells which incarnation of this actor answers."""
        self._called_s = time.monotonic()
        if self._ledger is None:
            return _BLANK
        return self._incarnation, getattr(self._ledger, method)(*args)

    def poll(self, since: int | None) -> Any:
        """``read``, and a ``status`` of the same moment: of all tasks, or those that changed ``since``."""
        self._called_s = time.monotonic()
        if self._ledger is None:
            return _BLANK
        events, following = self._ledger.read(since or 0)
        return events, following, self._ledger.status(since)

    def _watch(self, orphaned_after_s: float) -> None:
        me = ray.get_runtime_context().current_actor
        while time.monotonic() - self._called_s < orphaned_after_s:
            time.sleep(min(orphaned_after_s / 10, 30.0))
        ray.kill(me, no_restart=True)


def _ask(send: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The actor's answer, waiting while it is being restarted or is blank."""
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            answer = ray.get(send())
        except RayActorError as error:
            answer, problem = _BLANK, str(error)
        else:
            problem = "it was restarted and nobody filled it"
        if not (isinstance(answer, str) and answer == _BLANK):
            return answer
        if time.monotonic() > deadline_s:
            raise ExecutionError(f"the ledger did not answer for {patience_s:g} s: {problem}")
        time.sleep(RETRY_S)


class RayLedgerClient:
    """The end of a worker, or of the pool's controller.

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
        """See ``Ledger.join``. Done again whenever the actor turns out to have been restarted."""
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

    def _call(self, method: str, *args: Any) -> Any:
        incarnation, answer = _ask(lambda: self._actor.call.remote(method, *args))
        if self._seat is not None and incarnation != self._incarnation:
            # The driver may have filled it from before we sat down.
            self._join(self._seat)
        return answer

    def _join(self, seat: tuple[str, int, int]) -> None:
        self._incarnation, _ = _ask(lambda: self._actor.call.remote("join", *seat))


class RayLedger:
    """The driver's end: starts the actor, polls it, and fills it again after a restart.

    Args:
        run: Name of the run.
        specs: Its tasks.
        policy: Time-outs and budgets.
    """

    def __init__(self, run: str, specs: Sequence["TaskSpec"], policy: LedgerPolicy) -> None:
        self._specs, self._policy = specs, policy
        # Position up to which `_latest` is known; None for not at all.
        self._since: int | None = None
        self._num_loads = 0
        self._latest: RunStatus | None = None
        node = ray.get_runtime_context().get_node_id()
        self._actor = (
            ray.remote(LedgerActor)
            .options(
                name=ACTOR_NAME,
                namespace=run,
                lifetime="detached",
                num_cpus=0,
                max_restarts=-1,
                # Beside the driver: a worker's node may go at any time.
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
        )
        # Not waited for: whatever is called next comes after it.
        self._send_load()

    def poll(self) -> tuple[Sequence[Event], RunStatus]:
        """Events since the last poll, which are thereby taken, and how all tasks stand."""
        while True:
            try:
                answer = ray.get(self._actor.poll.remote(self._since))
            except RayActorError:
                answer = _BLANK
            if not isinstance(answer, str):
                events, following, changed = answer
                self._latest = _merge(None if self._since is None else self._latest, changed)
                self._since = following
                return events, self._latest
            self._since = None
            self._load()

    def cancel(self, tasks: Sequence[str]) -> list[str]:
        """See ``Ledger.cancel``."""
        return self._change("cancel", tasks)

    def retry(self, tasks: Sequence[str]) -> list[str]:
        """See ``Ledger.retry``."""
        return self._change("retry", tasks)

    def close(self) -> None:
        """Have all workers drop their tasks and end."""
        _ask(lambda: self._actor.call.remote("close"))

    def end(self) -> None:
        """End the actor."""
        ray.kill(self._actor, no_restart=True)

    def _change(self, method: str, tasks: Sequence[str]) -> list[str]:
        _, changed = _ask(lambda: self._actor.call.remote(method, list(tasks)))
        return list(changed)

    def _load(self) -> None:
        _ask(self._send_load)

    def _send_load(self) -> Any:
        self._num_loads += 1
        return self._actor.load.remote(self._specs, self._policy, self._latest, self._num_loads - 1)


def _merge(before: RunStatus | None, changed: RunStatus) -> RunStatus:
    """All tasks, from all of them before and those that have changed since."""
    if before is None:
        return changed
    if not changed.tasks:
        return replace(changed, tasks=before.tasks)
    tasks = {status.task: status for status in (*before.tasks, *changed.tasks)}
    return replace(changed, tasks=tuple(tasks.values()))
