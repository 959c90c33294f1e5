"""Status of a run and its tasks as plain values, for the progress view and to rebuild a lost ledger."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

__all__ = ["MEASURED", "RunStatus", "TaskState", "TaskStatus", "is_of_search"]

# Metrics of an artifact's card that a status shows.
MEASURED = ("accuracy", "accuracy_low", "accuracy_high", "probe_accuracy")

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
        search: Position in the search of the task's settings (fields of a ``search`` event), which precedes
            the tuning; None outside of it.
        epoch: Last epoch reported by the latest lease; of all candidates together during the search.
        best_epoch: Furthest epoch of any lease.
        num_epochs: Epochs in all; 0 until the first is reported.
        train_accuracy: Accuracy on the training images of the last epoch, in 0..1; None unless it tunes.
        accuracy: Accuracy of the published artifact on the held-out images, in 0..1; None before it is done.
        accuracy_low: Lower end of the 95% interval of that accuracy.
        accuracy_high: Upper end of that interval.
        probe_accuracy: Accuracy of the linear probe on the same held-out images.
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
    search: Mapping[str, int] | None = None
    epoch: int = 0
    best_epoch: int = 0
    num_epochs: int = 0
    train_accuracy: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    probe_accuracy: float | None = None
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

    def after_report(self, report: Mapping[str, Any], now_s: float) -> Self:
        """The status after a report (fields of an ``epoch`` or ``search`` event) at ``now_s``."""
        number, is_search = int(report["epoch"]), is_of_search(report)
        # The clock of the ETA starts with the first report of the search, and again with that of the tuning.
        goes_on = self.first_epoch_s is not None and (self.search is not None) == is_search
        status = replace(
            self,
            search=dict(report) if is_search else None,
            epoch=number,
            num_epochs=int(report["num_epochs"]),
            first_epoch=self.first_epoch if goes_on else number,
            first_epoch_s=self.first_epoch_s if goes_on else now_s,
        )
        if is_search:
            return status
        return replace(
            status,
            train_accuracy=report.get("train_accuracy"),
            best_epoch=max(number, self.best_epoch),
            losses=0 if number > self.best_epoch else self.losses,
        )

    def ended(self, state: TaskState, data: Mapping[str, Any], now_s: float) -> Self:
        """The status at the end of the task, with the held-out accuracy of a published one.

        Args:
            state: Its last state.
            data: Data of the event that ends it.
            now_s: Seconds since the epoch.
        """
        metrics = data.get("metrics") or {}
        return replace(
            self,
            state=state,
            cause=data.get("cause"),
            ended_s=now_s,
            search=None,
            train_accuracy=None,
            accuracy=metrics.get("accuracy"),
            accuracy_low=metrics.get("accuracy_low"),
            accuracy_high=metrics.get("accuracy_high"),
            probe_accuracy=metrics.get("probe_accuracy"),
        )


def is_of_search(report: Mapping[str, Any]) -> bool:
    """Whether a report is of the search of a task's settings, and not of an epoch of its tuning."""
    return "round" in report


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Status of all tasks and workers at one moment.

    Attributes:
        tasks: Tasks in the order of the manifest.
        workers: Worker on each seat of the pool.
        evicted: Workers that were replaced on their seats.
        starts_in_vain: Workers that took the first seat since the last sign of a tuning; it rises while the
            pool dies before it takes up work.
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
