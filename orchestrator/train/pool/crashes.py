"""Reports of dead workers to the ledger, from Ray Train's controller, and their causes in short.

Without them all workers of a restarted pool would look alike, and the task that kills workers could not be
told from its neighbours.
"""

import re
from typing import Any

import ray.train

from orchestrator.errors import ExecutionError
from orchestrator.train.ledger.actor import RayLedgerClient
from ship.redaction import redact_text

__all__ = ["CrashReport", "cause_of", "is_node_death"]

MAX_CAUSE_CHARS = 300

# Before it says this, Ray names the actor with identifiers of half a line.
_NODE_DEATH = re.compile(r"ip: (\S+) .*its node has died\. Node Id: \w+ *(.*)$")
_EXIT_DETAIL = re.compile(r"exit detail: (.+?)(?: Some common causes.*)?$", re.DOTALL)


class CrashReport(ray.train.UserCallback):  # type: ignore[misc]  # Ray is read without its types
    """Reports dead workers by rank, which is their seat.

    Args:
        run: Name of the run, by which the ledger is found.
    """

    def __init__(self, run: str) -> None:
        self._run = run

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Report the exception of each rank; called by Ray Train."""
        try:
            ledger = RayLedgerClient(self._run)
            for rank, error in worker_exceptions.items():
                # The preemption of a node is no fault of its tasks.
                if not getattr(_innermost(error), "preempted", False):
                    ledger.crashed(rank, cause_of(error), is_node_death(error))
        except ExecutionError:
            # The run has ended. Raising here would stop the controller.
            return


def cause_of(error: Exception) -> str:
    """Cause of a worker's death, in one line out of Ray's many."""
    said = _said(error)
    if found := _NODE_DEATH.search(said):
        said = f"its node {found[1]} has died: {found[2] or 'no cause given'}"
    elif found := _EXIT_DETAIL.search(said):
        said = found[1]
    return redact_text(said)[:MAX_CAUSE_CHARS] or type(error).__name__


def is_node_death(error: Exception) -> bool:
    """Whether a worker died because its whole node did."""
    return _NODE_DEATH.search(_said(error)) is not None


def _said(error: Exception) -> str:
    return " ".join(str(_innermost(error)).split())


def _innermost(error: Exception) -> BaseException:
    """The exception that Ray Train wraps in that of a health check."""
    inner: BaseException = getattr(error, "health_check_failure", error)
    return inner
