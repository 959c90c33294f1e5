"""A ledger's answers to a worker that asks for work, and the ledger's policy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.planning.spec import TaskSpec

__all__ = ["Ended", "Grant", "Lease", "LedgerPolicy", "Wait"]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's time-limited claim on a task.

    Attributes:
        spec: The task.
        attempt: Fencing token, from 1, higher at each lease of this task: only the latest one is accepted.
        lease_s: Seconds without a heartbeat after which the lease expires.
    """

    spec: "TaskSpec"
    attempt: int
    lease_s: float


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
        max_attempts: Failures of one task (a transient error, or a worker that died of it) until it is
            given up.
        max_losses: Leases of one task lost in a row, without an epoch of progress in between and through
            no known fault of the task (worker restarted, heartbeat missing), until it is given up.
        backoff_s: Seconds before a failed task is tried again; doubles at each failure.
        max_backoff_s: Upper limit of those seconds.
        wait_s: Seconds after which an idle worker asks again.
    """

    lease_s: float = 60.0
    max_attempts: int = 3
    max_losses: int = 5
    backoff_s: float = 2.0
    max_backoff_s: float = 60.0
    wait_s: float = 0.5

    def backoff_after(self, failures: int) -> float:
        """Seconds before the next attempt after a number of failures, from 1."""
        return float(min(self.backoff_s * 2.0 ** (failures - 1), self.max_backoff_s))
