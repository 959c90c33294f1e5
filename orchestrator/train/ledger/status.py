"""What a ledger knows of its tasks, as plain values: for the progress view, and to rebuild a lost ledger."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["RunStatus", "TaskState", "TaskStatus"]

TaskState = Literal["pending", "leased", "done", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """One task.

    Attributes:
        task: Task name.
        key: Task key.
        state: ``pending``, ``leased``, ``done``, ``failed`` or ``cancelled``.
        worker: Who holds the lease, or held the last one.
        attempt: The latest lease's fencing token; 0 before the first.
        failures: Failures that count against the task.
        losses: Leases lost in a row, through no known fault of the task, since it last got further.
        is_suspect: Whether it was in a pack that came to harm, nobody knows through whom: it is then tuned
            alone.
        epoch: The last epoch reported by the latest lease.
        best_epoch: The furthest that any lease came.
        num_epochs: Epochs in all; 0 until the first is reported.
        accuracy: The last validation accuracy, else training accuracy, in 0..1.
        started_s: Start of the latest lease, seconds since the epoch.
        first_epoch: The first epoch that the latest lease reported (above 1 if it resumed); 0 before it.
        first_epoch_s: When it did, seconds since the epoch.
        ended_s: When it was done, failed or cancelled.
        not_before_s: A pending task is not leased before this time.
        cause: Why it failed, or why the last attempt did.
    """

    task: str
    key: str
    state: TaskState = "pending"
    worker: str | None = None
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    is_suspect: bool = False
    epoch: int = 0
    best_epoch: int = 0
    num_epochs: int = 0
    accuracy: float | None = None
    started_s: float | None = None
    first_epoch: int = 0
    first_epoch_s: float | None = None
    ended_s: float | None = None
    not_before_s: float = 0.0
    cause: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nobody will work on it any more, unless somebody asks for it again."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """All tasks at one moment.

    Attributes:
        tasks: In the order of the manifest.
        workers: Who sits on each seat of the pool.
        evicted: Who sat there before.
        starts_in_vain: Workers that took the first seat since a task was last leased: a pool that dies
            before it takes up work counts up here.
        last_crash: Why a worker of the pool died last.
    """

    tasks: tuple[TaskStatus, ...]
    workers: Mapping[int, str]
    evicted: frozenset[str]
    starts_in_vain: int
    last_crash: str | None

    @property
    def all_ended(self) -> bool:
        """Whether every task has ended."""
        return all(status.has_ended for status in self.tasks)

    def counts(self) -> Counter[TaskState]:
        """Number of tasks in each state."""
        return Counter(status.state for status in self.tasks)
