"""Status of a run and its tasks as plain values, for the progress view and to rebuild a lost ledger."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

__all__ = ["RunStatus", "TaskState", "TaskStatus"]

TaskState = Literal["pending", "leased", "done", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """Status of one task.

    Attributes:
        task: Task name.
        key: Task key.
        state: ``pending``, ``leased``, ``done``, ``failed`` or ``cancelled``.
        worker: Worker that holds the lease, or held the last one.
        attempt: Fencing token of the latest lease; 0 before the first.
        failures: Failures charged to the task.
        losses: Leases lost in a row, through no known fault of the task, since its last progress.
        is_suspect: Whether it was in a pack that failed: it is then tuned alone.
        epoch: Last epoch reported by the latest lease.
        best_epoch: Furthest epoch of any lease.
        num_epochs: Epochs in all; 0 until the first is reported.
        accuracy: Last validation accuracy, else training accuracy, in 0..1.
        started_s: Start of the latest lease, seconds since the epoch.
        first_epoch: First epoch that the latest lease reported (above 1 if it resumed); 0 before it.
        first_epoch_s: Time of that report, seconds since the epoch.
        ended_s: Time when it was done, failed or cancelled, seconds since the epoch.
        pause_s: Seconds from the end of the last attempt until the next lease.
        cause: Cause of its failure, or of the last attempt's.
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
    pause_s: float = 0.0
    cause: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in ("done", "failed", "cancelled")

    def after_epoch(self, epoch: Mapping[str, Any], now_s: float) -> Self:
        """The status after an epoch (fields of an ``epoch`` event) that ended at ``now_s``."""
        number = int(epoch["epoch"])
        accuracy = epoch.get("val_accuracy")
        return replace(
            self,
            epoch=number,
            num_epochs=int(epoch["num_epochs"]),
            accuracy=epoch.get("train_accuracy") if accuracy is None else accuracy,
            best_epoch=max(number, self.best_epoch),
            losses=0 if number > self.best_epoch else self.losses,
            first_epoch=self.first_epoch or number,
            first_epoch_s=self.first_epoch_s or now_s,
        )


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Status of all tasks and workers at one moment.

    Attributes:
        tasks: Tasks in the order of the manifest.
        workers: Worker on each seat of the pool.
        evicted: Workers that were replaced on their seats.
        starts_in_vain: Workers that took the first seat since the last lease; it rises while the pool dies
            before it takes up work.
        last_crash: Cause of the last death of a worker.
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
