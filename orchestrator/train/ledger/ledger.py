"""The ledger: a state machine of tasks and their leases.

Owns the states of tasks (pending -> leased -> done, failed or cancelled), leases, fencing and retries.
Knows neither Ray nor a clock of its own, and does no input or output: it is stepped by its callers.

Two budgets end a bad task without punishing its neighbours. Ray Train restarts all workers when one dies, so
most lost leases are no task's fault:

- a *failure* is charged to the task: it raised a transient error, made no progress, or the worker that died
  was working on it. ``max_attempts`` of them end it;
- a *loss* has no known cause: the pool was restarted around it, its node died, or heartbeats stopped. Only
  ``max_losses`` in a row without one epoch of progress end the task.

A worker may hold several leases, whose tasks it tunes as one pack. If it then dies, or a step of the pack
fails, any of them may be the cause: each has a loss, and is a *suspect* from then on, which is leased only to
a worker that holds no other task. A failure of a suspect is its own.

The fencing token (``attempt``) is neither of these: it counts leases.

Leases and pauses are measured on a monotonic clock, which belongs to one process. Wall time is for people
only: a pause is kept as a status by its length, and begins anew where another ledger takes over.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.events import Event, EventKind
from orchestrator.train.ledger.event_log import EventLog
from orchestrator.train.ledger.grants import Ended, Grant, Lease, LedgerPolicy, Wait
from orchestrator.train.ledger.status import RunStatus, TaskState, TaskStatus, is_of_search
from orchestrator.train.ledger.waiting import WaitingTasks, order_of

if TYPE_CHECKING:
    from orchestrator.planning.spec import TaskSpec
    from orchestrator.train.ledger.failures import Failure

__all__ = ["Ledger"]

# Of one task by one lost ledger, after the driver's last look at it.
_MAX_UNSEEN_LEASES = 100

_ENDS: dict[EventKind, TaskState] = {"published": "done", "failed": "failed", "cancelled": "cancelled"}


class Ledger:
    """Hands out tasks, by priority, then deadline, then longest first, and keeps account of them.

    Args:
        specs: The tasks; names must differ.
        policy: Time-outs and budgets.
        clock: Monotonic seconds, for leases and pauses.
        earlier: Last known status of a lost ledger, which this one continues, leases included.
        num_lost: Ledgers of these tasks that were lost before this one.
        wall: Seconds since the epoch, for people.
        trace: See ``Lease``.
    """

    def __init__(
        self,
        specs: Sequence["TaskSpec"],
        policy: LedgerPolicy,
        clock: Callable[[], float],
        earlier: RunStatus | None = None,
        num_lost: int = 0,
        wall: Callable[[], float] = time.time,
        trace: str | None = None,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        if len(self._specs) != len(specs):
            raise ValueError("two tasks of one ledger have the same name")
        self._policy, self._trace = policy, trace
        self._clock, self._wall = clock, wall
        self._status = {spec.name: TaskStatus(task=spec.name, key=spec.key) for spec in specs}
        self._waiting = WaitingTasks(sorted(self._specs, key=lambda name: order_of(self._specs[name])))
        # Position in the log of the last event of a task.
        self._changed: dict[str, int] = {}
        self._expires_s: dict[str, float] = {}
        self._fewest_attempt: dict[str, int] = {}
        self._seats: dict[int, str] = {}
        self._num_seats = 1
        self._evicted: set[str] = set()
        self._log = EventLog()
        self._starts_in_vain = 0
        self._last_crash: str | None = None
        self._is_closed = False
        if earlier is not None:
            self._take_over(earlier, num_lost)
        for status in self._status.values():
            if status.state == "pending":
                self._put_back(status)

    # What workers call.

    def join(self, worker: str, seat: int, num_seats: int) -> None:
        """Seat a worker on one of the pool's seats, and evict the workers of that seat and of higher ones."""
        if worker in self._evicted:
            return
        # Where nothing waits, a worker takes up nothing: others tune what is left.
        if seat == 0 and self._seats.get(0) != worker and self._waiting:
            self._starts_in_vain += 1
        self._num_seats = num_seats
        for taken, holder in list(self._seats.items()):
            if holder != worker and (taken == seat or taken >= num_seats):
                self._evict(taken, "its worker was restarted along with the pool")
        self._seats[seat] = worker

    def lease(self, worker: str, held: Collection[str] = ()) -> Grant:
        """Lease a task to a worker that works on the tasks ``held``, and has given up any other lease.

        A worker gets a further task only while enough wait for the other workers. It is dismissed only once
        the driver has closed the ledger: if the ledger is lost before the driver has read of the last
        completion, a worker is needed to find that task in the store.
        """
        self._expire()
        for name in self._held_by(worker):
            if name in held:
                continue
            if self._is_closed:
                self._release(replace(self._status[name], cause="the run was stopped"))
            else:
                self._lose(name, "its worker gave it up")
        if self._is_closed or worker in self._evicted:
            return Ended()
        now_s = self._clock()
        task = self._waiting.first(now_s)
        if task is None or (held and not self._may_join(task, held)):
            return Wait(seconds=self._policy.wait_s)
        self._waiting.remove(task)
        return self._grant(self._status[task], worker, now_s)

    def heartbeat(self, worker: str, task: str, attempt: int, epoch: Mapping[str, Any] | None = None) -> bool:
        """Prolong a lease, and report the epoch, or the step of the search, that just ended, if any.

        Returns:
            Whether the worker still holds the lease; if not, it must drop the task.
        """
        status = self._live(worker, task, attempt)
        if status is None or self._is_closed:
            return False
        self._expires_s[task] = self._clock() + self._policy.lease_s
        self._starts_in_vain = 0
        if epoch is not None:
            self._status[task] = status.after_report(epoch, self._wall())
            self._record("search" if is_of_search(epoch) else "epoch", self._status[task], dict(epoch))
        return True

    def complete(self, worker: str, task: str, attempt: int, data: Mapping[str, Any]) -> bool:
        """Report a published task, once or repeatedly. Returns False if the lease was lost."""
        status = self._status[task]
        if status.state == "done" and (status.worker, status.attempt) == (worker, attempt):
            return True
        live = self._live(worker, task, attempt)
        if live is None:
            return False
        floors = self._specs[task].floors.to_dict()
        self._end(live, "published", {**data, **({"floors": floors} if floors else {})})
        return True

    def fail(self, worker: str, task: str, attempt: int, failure: "Failure") -> bool:
        """Report a failed attempt. Returns False if the lease was lost."""
        status = self._live(worker, task, attempt)
        if status is None:
            return False
        if failure.is_shared and not status.is_suspect:
            self._suspect(task, failure.cause)
        elif failure.is_retryable:
            self._charge(status, failure.cause, failure.detail)
        else:
            self._end(status, "failed", {"cause": failure.cause, "detail": failure.detail})
        return True

    def stall(self, worker: str, task: str, attempt: int, cause: str, is_shared: bool = False) -> None:
        """Report a task without progress; its worker leaves, and gives up all that it holds.

        Args:
            worker: The worker, which gets no other lease.
            task: The task, which is charged with a failure.
            attempt: Fencing token of its lease.
            cause: Where it stood, and for how long.
            is_shared: Whether any other task of the worker's pack may be the cause.
        """
        stuck = self._live(worker, task, attempt)
        self._evicted.add(worker)
        self._seats = {seat: holder for seat, holder in self._seats.items() if holder != worker}
        self._last_crash = cause
        held = self._held_by(worker)
        for name in held:
            if is_shared and len(held) > 1:
                self._suspect(name, cause)
            elif stuck is not None and name == task:
                self._charge(stuck, cause, "")
            else:
                self._lose(name, f"its worker left, because task {task!r} made no progress")

    # What the driver and the pool's controller call.

    def crashed(self, seat: int, cause: str, with_node: bool = False) -> None:
        """Report a dead worker: its task is charged with the failure, unless the whole node died."""
        self._last_crash = cause
        worker = self._seats.pop(seat, None)
        if worker is None:
            return
        self._evicted.add(worker)
        held = self._held_by(worker)
        for name in held:
            if with_node:
                self._lose(name, f"its worker died: {cause}")
            elif len(held) == 1:
                self._charge(self._status[name], f"its worker died: {cause}", "")
            else:
                others = f"{len(held) - 1} other task{'s' if len(held) > 2 else ''}"
                self._suspect(name, f"its worker died, with {others}: {cause}")

    def cancel(self, tasks: Iterable[str]) -> list[str]:
        """Cancel tasks; a worker that holds one learns it at the next heartbeat.

        Returns:
            The tasks that had not ended.
        """
        self._expire()
        found = [name for name in tasks if not self._status[name].has_ended]
        for name in found:
            self._end(self._status[name], "cancelled", {})
        return found

    def retry(self, tasks: Iterable[str]) -> list[str]:
        """Put failed and cancelled tasks back to pending, with fresh budgets.

        Returns:
            The tasks that had failed or were cancelled; none once the ledger is closed.
        """
        if self._is_closed:
            return []
        found = [name for name in tasks if self._status[name].state in ("failed", "cancelled")]
        for name in found:
            status = replace(
                self._status[name],
                state="pending",
                failures=0,
                losses=0,
                is_suspect=False,
                ended_s=None,
                pause_s=0.0,
                cause="retried on request",
            )
            self._status[name] = status
            self._put_back(status)
            self._record("retried", status, {"cause": status.cause})
        return found

    def close(self) -> None:
        """Lease nothing more and refuse heartbeats, so that workers drop their tasks and end."""
        self._is_closed = True

    def read(self, since: int) -> tuple[Sequence[Event], int]:
        """Events from position ``since`` on, which acknowledges those before it; and the next position."""
        self._expire()
        return self._log.read(since)

    def status(self, since: int | None = None) -> RunStatus:
        """Status of all tasks, or of those with an event from position ``since`` on."""
        self._expire()
        return RunStatus(
            tasks=tuple(
                status
                for name, status in self._status.items()
                if since is None or self._changed.get(name, -1) >= since
            ),
            workers=dict(self._seats),
            evicted=frozenset(self._evicted),
            starts_in_vain=self._starts_in_vain,
            last_crash=self._last_crash,
        )

    # Transitions.

    def _grant(self, status: TaskStatus, worker: str, now_s: float) -> Lease:
        leased = replace(
            status,
            state="leased",
            worker=worker,
            attempt=max(status.attempt + 1, self._fewest_attempt.get(status.task, 0)),
            search=None,
            epoch=0,
            train_accuracy=None,
            pause_s=0.0,
            started_s=self._wall(),
            first_epoch=0,
            first_epoch_s=None,
        )
        self._status[status.task] = leased
        self._expires_s[status.task] = now_s + self._policy.lease_s
        self._starts_in_vain = 0
        self._record("leased", leased, {"worker": worker})
        return Lease(
            spec=self._specs[status.task],
            attempt=leased.attempt,
            lease_s=self._policy.lease_s,
            stall=self._policy.stall,
            trace=self._trace,
        )

    def _charge(self, status: TaskStatus, cause: str, detail: str) -> None:
        """Count a failure of the task, and put it back with a pause or end it."""
        failures = status.failures + 1
        if failures >= self._policy.max_attempts:
            counted = replace(status, failures=failures)
            self._end(counted, "failed", {"cause": f"{cause} (failed {failures} times)", "detail": detail})
            return
        pause_s = self._policy.backoff_after(failures)
        self._release(replace(status, failures=failures, pause_s=pause_s, cause=cause))

    def _lose(self, name: str, cause: str) -> None:
        """Revoke a lease, and count a loss."""
        status = self._status[name]
        losses = status.losses + 1
        if losses >= self._policy.max_losses:
            why = f"{cause} (lost {losses} times in a row without an epoch of progress)"
            self._end(replace(status, losses=losses), "failed", {"cause": why, "detail": ""})
            return
        self._release(replace(status, losses=losses, cause=cause))

    def _suspect(self, name: str, cause: str) -> None:
        """Revoke a lease, and have the task tuned alone from now on."""
        self._status[name] = replace(self._status[name], is_suspect=True)
        self._lose(name, cause)

    def _release(self, status: TaskStatus) -> None:
        self._status[status.task] = replace(status, state="pending", search=None, train_accuracy=None)
        self._put_back(status)
        self._expires_s.pop(status.task)
        self._record("retried", status, {"cause": status.cause})

    def _put_back(self, status: TaskStatus) -> None:
        self._waiting.put(status.task, self._clock() + status.pause_s)

    def _end(self, status: TaskStatus, kind: EventKind, data: dict[str, Any]) -> None:
        self._status[status.task] = status.ended(_ENDS[kind], data, self._wall())
        self._waiting.remove(status.task)
        self._expires_s.pop(status.task, None)
        self._record(kind, status, data)

    def _expire(self) -> None:
        now_s = self._clock()
        for name in [name for name, expires_s in self._expires_s.items() if expires_s <= now_s]:
            self._lose(name, f"no heartbeat from its worker for {self._policy.lease_s:g} s")

    def _evict(self, seat: int, cause: str) -> None:
        worker = self._seats.pop(seat)
        self._evicted.add(worker)
        for name in self._held_by(worker):
            self._lose(name, cause)

    def _take_over(self, earlier: RunStatus, num_lost: int) -> None:
        now_s = self._clock()
        for status in earlier.tasks:
            self._status[status.task] = status
            # Leases that a lost ledger granted after `earlier` are unknown here: skip their tokens, so that
            # none is ever granted twice.
            self._fewest_attempt[status.task] = status.attempt + 1 + num_lost * _MAX_UNSEEN_LEASES
            if status.state == "leased":
                self._expires_s[status.task] = now_s + self._policy.lease_s
        self._seats = dict(earlier.workers)
        self._evicted = set(earlier.evicted)
        self._starts_in_vain = earlier.starts_in_vain
        self._last_crash = earlier.last_crash

    # Questions.

    def _live(self, worker: str, task: str, attempt: int) -> TaskStatus | None:
        """The task's status if this lease is its current one."""
        self._expire()
        status = self._status[task]
        is_live = status.state == "leased" and (status.worker, status.attempt) == (worker, attempt)
        return status if is_live else None

    def _may_join(self, task: str, held: Collection[str]) -> bool:
        """Whether a worker may take this task beside those that it holds."""
        is_alone = any(self._status[name].is_suspect for name in (task, *held))
        # Towards the end a worker must not hold tasks that an idle one could tune.
        return not is_alone and len(held) < math.ceil(len(self._waiting) / self._num_seats)

    def _held_by(self, worker: str) -> Sequence[str]:
        return [name for name in self._expires_s if self._status[name].worker == worker]

    def _record(self, kind: EventKind, status: TaskStatus, data: dict[str, Any]) -> None:
        self._changed[status.task] = self._log.append(
            Event(
                kind=kind,
                task=status.task,
                key=status.key,
                attempt=status.attempt,
                time_s=self._wall(),
                data=data,
            )
        )
