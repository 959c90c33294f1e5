"""Requests to the run at work about tasks by name, with what came of each: by a command or by a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from orchestrator.errors import ExecutionError
from orchestrator.names import check_task_name
from orchestrator.train.run.files import RunRequest
from orchestrator.train.run.view import RunView

__all__ = ["Retried", "cancel_tasks", "check_known", "retry_tasks", "status_values", "stop_run"]

_NOT_RETRIED = {
    "leased": "a worker is tuning it now; `ship cancel` it first to start over",
    "pending": "it waits for a worker already",
    "done": "it is published; change its settings or data in the manifest to tune it again",
}
_CHANGED_STATE = "it had neither failed nor been cancelled; `ship status` says what it does now"


@dataclass(frozen=True, kw_only=True)
class Retried:
    """Result of a request to take tasks up again.

    Attributes:
        taken_up: Tasks that wait for a worker again.
        refused: Reason by task, of those that were asked for by name and not taken up.
    """

    taken_up: tuple[str, ...]
    refused: Mapping[str, str]


def check_known(view: RunView, tasks: Sequence[str]) -> None:
    """Check that a run has tasks of these names.

    Raises:
        ExecutionError: It has not, or has none under way yet.
        ValueError: A name is none of a task.
    """
    for task in tasks:
        check_task_name(task)
    found = view.status()
    if tasks and found is None and view.is_at_work:
        raise ExecutionError("the run has no tasks under way yet; try again in a moment")
    known = {status.task for status in found[0].tasks} if found is not None else set()
    if unknown := [task for task in tasks if task not in known]:
        close = get_close_matches(unknown[0], known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "`ship status` lists them"
        raise ExecutionError(f"no such task in the run: {', '.join(unknown)}; {hint}")


def cancel_tasks(view: RunView, tasks: Sequence[str]) -> tuple[str, ...]:
    """Leave tasks of the run; returns those that had not ended.

    Raises:
        ExecutionError: It has no such task, is over, or does not answer.
    """
    check_known(view, tasks)
    return view.ask(RunRequest(kind="cancel", tasks=tuple(tasks)))


def stop_run(view: RunView) -> None:
    """End the run cleanly, as Ctrl-C does.

    Raises:
        ExecutionError: It is over, or does not answer.
    """
    view.ask(RunRequest(kind="stop"))


def retry_tasks(view: RunView, tasks: Sequence[str]) -> Retried:
    """Take failed or cancelled tasks of the run up again; all of them without names.

    Raises:
        ExecutionError: It has no such task, is over, or does not answer.
    """
    check_known(view, tasks)
    changed = view.ask(RunRequest(kind="retry", tasks=tuple(tasks)))
    found = view.status()
    states = {status.task: status.state for status in found[0].tasks} if found is not None else {}
    return Retried(
        taken_up=changed,
        refused={
            task: _NOT_RETRIED.get(states.get(task, ""), _CHANGED_STATE)
            for task in tasks
            if task not in changed
        },
    )


def status_values(view: RunView) -> dict[str, Any]:
    """A run and the status of its tasks as plain values."""
    found = view.status()
    return {
        **asdict(view.about()),
        "is_at_work": view.is_at_work,
        "time_s": found[1] if found else None,
        "counts": dict(found[0].counts()) if found else {},
        "tasks": [asdict(status) for status in found[0].tasks] if found else [],
    }
