"""Progress of a run: a live table on a terminal, one line per news elsewhere.

A view of the run's status, nothing more: it decides nothing and keeps only what it has already said.
"""

import time
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.train.ledger.status import RunStatus, TaskState, TaskStatus

__all__ = ["ProgressView", "eta_s"]

# A line is printed each time a task has got this much further.
LINE_EVERY_SHARE = 0.1
MAX_NOTE_CHARS = 60

_COUNTED: dict[TaskState, str] = {
    "done": "done",
    "leased": "at work",
    "pending": "waiting",
    "failed": "failed",
    "cancelled": "cancelled",
}
_STYLES = {"pending": "dim", "leased": "cyan", "done": "green", "failed": "red", "cancelled": "yellow"}
_WORDS = {
    "pending": "waits",
    "leased": "tunes",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


class ProgressView:
    """Prints what changed since the last status.

    Args:
        console: Where to.
        clock: Seconds since the epoch.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.time) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._said: dict[str, tuple[str, int, int]] = {}

    def update(self, run_status: RunStatus) -> None:
        """Show the status of a run."""
        if not self._console.is_terminal:
            self._print_news(run_status)
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(self._table(run_status), refresh=True)

    def close(self) -> None:
        """Leave the last state standing, and give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, run_status: RunStatus) -> Table:
        table = Table(caption=_summary(run_status), caption_justify="left")
        table.add_column("task", no_wrap=True)
        table.add_column("state")
        for name in ("epoch", "accuracy", "ETA"):
            table.add_column(name, justify="right")
        table.add_column("worker")
        table.add_column("note", overflow="ellipsis", no_wrap=True)
        shown = self._fit(run_status.tasks)
        for status in shown:
            table.add_row(*self._cells(status))
        if hidden := len(run_status.tasks) - len(shown):
            table.add_row(Text(f"... {hidden} more", style="dim"))
        return table

    def _fit(self, tasks: tuple[TaskStatus, ...]) -> list[TaskStatus]:
        """As many tasks as the terminal has lines for; those at work first if not all fit."""
        room = max(self._console.height - 7, 3)
        if len(tasks) <= room:
            return list(tasks)
        rank = {"leased": 0, "failed": 1, "pending": 2, "cancelled": 3, "done": 4}
        return sorted(tasks, key=lambda status: rank[status.state])[:room]

    def _cells(self, status: TaskStatus) -> Iterable[Text]:
        yield Text(status.task)
        yield Text(_WORDS[status.state], style=_STYLES[status.state])
        yield Text(_epochs(status))
        yield Text("" if status.accuracy is None else f"{status.accuracy:.3f}")
        yield Text(_duration(eta_s(status, self._clock())))
        yield Text(_short(status.worker) if status.state == "leased" else "")
        yield Text(_note(status), style="red" if status.state == "failed" else "dim")

    def _print_news(self, run_status: RunStatus) -> None:
        for status in run_status.tasks:
            step = int(status.epoch / status.num_epochs / LINE_EVERY_SHARE) if status.num_epochs else 0
            now = (status.state, status.attempt, step if status.state == "leased" else 0)
            if self._said.get(status.task, ("pending", 0, 0)) != now:
                self._said[status.task] = now
                self._console.print(self._line(status), markup=False, highlight=False, soft_wrap=True)

    def _line(self, status: TaskStatus) -> str:
        parts = [f"{status.task}: {_WORDS[status.state]}"]
        if status.state == "leased":
            parts[0] += f" on {_short(status.worker)}"
        if status.epoch:
            parts.append(f"epoch {_epochs(status)}")
        if status.accuracy is not None:
            parts.append(f"accuracy {status.accuracy:.3f}")
        if (left_s := eta_s(status, self._clock())) is not None:
            parts.append(f"ETA {_duration(left_s)}")
        if note := _note(status, max_chars=None):
            parts.append(note)
        return ", ".join(parts)


def eta_s(status: TaskStatus, now_s: float) -> float | None:
    """Seconds until the task's last epoch at its rate so far; None while that cannot be told.

    The first epoch sets the clock, because reading data and finding levels come before it.
    """
    if status.state != "leased" or status.first_epoch_s is None:
        return None
    num_timed = status.epoch - status.first_epoch
    if num_timed <= 0:
        return None
    epoch_s = (now_s - status.first_epoch_s) / num_timed
    return max(0.0, epoch_s * (status.num_epochs - status.epoch))


def _epochs(status: TaskStatus) -> str:
    return f"{status.epoch}/{status.num_epochs}" if status.num_epochs else ""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(worker: str | None) -> str:
    return (worker or "").partition("@")[0]


def _note(status: TaskStatus, max_chars: int | None = MAX_NOTE_CHARS) -> str:
    words = " ".join((status.cause or "").split())
    if words and status.state in ("pending", "leased"):
        words = f"attempt {status.attempt + (status.state == 'pending')}: {words}"
    return words if max_chars is None or len(words) <= max_chars else words[: max_chars - 3] + "..."


def _summary(run_status: RunStatus) -> str:
    counts = run_status.counts()
    said = ", ".join(f"{counts[state]} {word}" for state, word in _COUNTED.items() if counts[state])
    return said if run_status.workers else f"{said}; the workers are being started"
