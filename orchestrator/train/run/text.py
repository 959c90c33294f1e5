"""Words and figures of a run's status and events, as terminals and pages show them."""

from collections.abc import Mapping
from typing import Any

from orchestrator.events import Event
from orchestrator.train.ledger.status import MEASURED, RunStatus, TaskState, TaskStatus

__all__ = [
    "describe_accuracy",
    "describe_counts",
    "describe_event",
    "describe_figures",
    "describe_note",
    "describe_state",
    "eta_s",
    "worker_name",
]

_COUNTED: dict[TaskState, str] = {
    "done": "done",
    "leased": "at work",
    "pending": "waiting",
    "failed": "failed",
    "cancelled": "cancelled",
}
_WORDS = {
    "pending": "waits",
    "leased": "tunes",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


def describe_accuracy(metrics: Mapping[str, Any]) -> str:
    """Held-out accuracy with its 95% interval beside the linear probe's; empty where it is not known."""
    accuracy, low, high, probe = (metrics.get(name) for name in MEASURED)
    if accuracy is None:
        return ""
    interval = "" if low is None or high is None else f" ({low:.3f}-{high:.3f})"
    return f"held out {accuracy:.3f}{interval}" + ("" if probe is None else f", probe {probe:.3f}")


def describe_counts(run_status: RunStatus, is_over: bool) -> str:
    """Numbers of tasks by state."""
    counts = run_status.counts()
    if is_over:
        left = counts["leased"] + counts["pending"]
        said = [f"{counts[state]} {state}" for state in ("done", "failed", "cancelled") if counts[state]]
        return ", ".join([*said, f"{left} unfinished"] if left else said)
    summary = ", ".join(f"{counts[state]} {word}" for state, word in _COUNTED.items() if counts[state])
    return summary if run_status.workers else f"{summary}; the workers are being started"


def describe_state(status: TaskStatus, is_over: bool) -> str:
    """What a task does, in a word."""
    if is_over and not status.has_ended:
        return "unfinished"
    return "searches" if status.state == "leased" and status.search is not None else _WORDS[status.state]


def describe_figures(status: TaskStatus, is_over: bool, now_s: float) -> list[str]:
    """What is measured of a task: while it tunes on training images, then on the held-out ones."""
    if status.state == "done":
        return list(filter(None, [describe_accuracy(vars(status))]))
    if status.state != "leased" or is_over:
        return []
    figures = []
    if (found := status.search) is not None:
        is_probing = found["round"] == 0
        figures.append("linear probes" if is_probing else f"round {found['round']}/{found['num_rounds']}")
        figures.append(f"{found['num_candidates']} candidates left")
    elif status.epoch:
        figures.append(f"epoch {status.epoch}/{status.num_epochs}")
    if status.train_accuracy is not None:
        figures.append(f"training accuracy {status.train_accuracy:.3f}")
    if (left_s := eta_s(status, now_s)) is not None:
        figures.append(f"ETA {_duration(left_s)}")
    return figures


def describe_note(status: TaskStatus, is_over: bool) -> str:
    """Cause of a task's failure, or of its last attempt's, on one line."""
    words = " ".join((status.cause or "").split())
    if words and not is_over and status.state in ("pending", "leased"):
        words = f"attempt {status.attempt + (status.state == 'pending')}: {words}"
    return words


def worker_name(worker: str | None) -> str:
    """Name of a worker without its host."""
    return (worker or "").partition("@")[0]


def eta_s(status: TaskStatus, now_s: float) -> float | None:
    """Seconds until the last epoch of the task, or of its search, at its rate so far; None while unknown.

    The first epoch sets the clock, because reading data and finding levels come before it.
    """
    if status.state != "leased" or status.first_epoch_s is None:
        return None
    num_timed = status.epoch - status.first_epoch
    if num_timed <= 0:
        return None
    epoch_s = (now_s - status.first_epoch_s) / num_timed
    return max(0.0, epoch_s * (status.num_epochs - status.epoch))


def describe_event(event: Event) -> str:
    """What an event tells, on one line; the detail of a failure is in its data."""
    data = event.data
    match event.kind:
        case "leased":
            return f"taken up by {data.get('worker', '?')}"
        case "epoch":
            epoch = f"epoch {data['epoch']}/{data['num_epochs']}, loss {data['loss']:.4f}"
            accuracy = data.get("train_accuracy")
            return epoch if accuracy is None else f"{epoch}, training accuracy {accuracy:.3f}"
        case "search":
            where = f"round {data['round']}/{data['num_rounds']}" if data["round"] else "linear probes"
            return f"searches settings, {where}, {data['num_candidates']} candidates left"
        case "published":
            published = f"published as {str(data.get('digest', '?'))[:12]}"
            return ", ".join(filter(None, [published, describe_accuracy(data.get("metrics", {}))]))
        case "failed":
            return f"failed: {data.get('cause', '?')}"
        case "retried":
            return f"to be tried again: {data.get('cause', '?')}"
        case "cancelled":
            return "cancelled"
        case "tagged":
            return "tagged anew"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
