"""A ledger's answers to a worker that asks for work, and the ledger's policy."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from orchestrator.planning.spec import TaskSpec

__all__ = ["Ended", "Grant", "Lease", "LedgerPolicy", "Phase", "StallLimits", "Wait"]

Phase = Literal["data", "step", "store"]


@dataclass(frozen=True, kw_only=True)
class StallLimits:
    """Seconds without any progress after which a worker gives a task up and leaves.

    Attributes:
        data_s: While data is read: until one more file is read and decoded, or one folder is listed.
        step_s: While tasks are tuned or wait for their turn: until one more forward pass of the worker.
        store_s: While the store is read or written: until one more object is.
    """

    data_s: float = 1200.0
    step_s: float = 3600.0
    store_s: float = 1200.0

    def of(self, phase: Phase) -> float:
        """The limit of a phase."""
        return {"data": self.data_s, "step": self.step_s, "store": self.store_s}[phase]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's time-limited claim on a task.

    Attributes:
        spec: The task.
        attempt: Fencing token, from 1, higher at each lease of this task: only the latest one is accepted.
        lease_s: Seconds without a heartbeat after which the lease expires.
        stall: Limits on the time without progress, after which no heartbeat may renew it.
        trace: ``traceparent`` of the driver's span; None if the run is not traced.
    """

    spec: "TaskSpec"
    attempt: int
    lease_s: float
    stall: StallLimits = field(default_factory=StallLimits)
    trace: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wait:
    """No task to lease now, but tasks may come back: ask again.

    Attributes:
        seconds: Seconds to wait before that.
    """

    seconds: float


@dataclass(frozen=True)
class Ended:
    """No task will ever be leased to this worker again."""


Grant = Lease | Wait | Ended


@dataclass(frozen=True, kw_only=True)
class LedgerPolicy:
    """Lease time and retry budgets of a ledger.

    Attributes:
        lease_s: Seconds after its last heartbeat at which a lease expires.
        stall: Limits on the time without progress, by phase.
        max_attempts: Failures of one task (a transient error, no progress, or a worker that died of it) until
            it is given up.
        max_losses: Leases of one task lost in a row, without an epoch of progress in between and through
            no known fault of the task (worker restarted, heartbeat missing), until it is given up.
        backoff_s: Seconds before a failed task is tried again; doubles at each failure.
        max_backoff_s: Upper limit of those seconds.
        wait_s: Seconds after which an idle worker asks again.
    """

    lease_s: float = 60.0
    stall: StallLimits = field(default_factory=StallLimits)
    max_attempts: int = 3
    max_losses: int = 5
    backoff_s: float = 2.0
    max_backoff_s: float = 60.0
    wait_s: float = 0.5

    def backoff_after(self, failures: int) -> float:
        """Seconds before the next attempt after a number of failures, from 1."""
        return float(min(self.backoff_s * 2.0 ** (failures - 1), self.max_backoff_s))
