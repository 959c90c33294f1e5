"""Progress of a run: a live table on a terminal, one line per news elsewhere.

A view of the run's status, nothing more: it decides nothing and keeps only what it has already said.
"""

import time
from collections.abc import Callable

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.train.ledger.status import RunStatus, TaskStatus
from orchestrator.train.run.text import (
    describe_counts,
    describe_figures,
    describe_note,
    describe_state,
    worker_name,
)

__all__ = ["ProgressView"]

# A line is printed each time a task has got this much further.
LINE_EVERY_SHARE = 0.1
# A note is cut to the rest of its line, but not below this; the figures before it are never cut.
MIN_NOTE_COLUMNS = 60
MIN_NEWS_COLUMNS = 24

_STYLES = {"pending": "dim", "leased": "cyan", "done": "green", "failed": "red", "cancelled": "yellow"}


class ProgressView:
    """A live table on a terminal, else lines of what changed since the last status.

    Args:
        console: Where to.
        clock: Seconds since the epoch.
        lists_all: Whether the first status has a line for each task, also for one that waits.
    """

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.time, *, lists_all: bool = False
    ) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._unsaid = None if lists_all else ("pending", 0, "", 0)
        self._said: dict[str, tuple[str, int, str, int]] = {}

    def update(self, run_status: RunStatus, *, is_over: bool = False) -> None:
        """Show the status of a run, which is at work or over."""
        if not self._console.is_terminal:
            self._print_news(run_status, is_over)
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(self._table(run_status, is_over), refresh=True)

    def close(self) -> None:
        """Leave the last state standing, and give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, run_status: RunStatus, is_over: bool) -> Table:
        """The table, with widths of its columns that depend on no note: what is long is folded or cut."""
        tasks = run_status.tasks
        words = max((len(describe_state(status, is_over)) for status in tasks), default=0)
        room = self._console.width - max(words, len("state")) - 4
        names = max([len(f"... {len(tasks)} more"), *(cell_len(status.task) for status in tasks)])
        names = max(min(names, room - MIN_NEWS_COLUMNS), 1)
        table = Table(
            caption=describe_counts(run_status, is_over),
            caption_justify="left",
            box=None,
            padding=(0, 2, 0, 0),
            pad_edge=False,
        )
        table.add_column("task", width=names, overflow="fold")
        table.add_column("state", no_wrap=True)
        table.add_column("", width=max(room - names, 1), overflow="fold")
        rows = [(status, self._news(status, is_over, room - names)) for status in self._sorted(tasks)]
        lines_left = max(self._console.height - 7, 3)
        for number, (status, news) in enumerate(rows):
            lines_left -= max(_num_lines(status.task, names), _num_lines(news.plain, room - names))
            if lines_left < 0 and number:
                table.add_row(Text(f"... {len(tasks) - number} more", style="dim"))
                break
            word = Text(describe_state(status, is_over), style=_STYLES[status.state])
            table.add_row(Text(status.task), word, news)
        return table

    def _sorted(self, tasks: tuple[TaskStatus, ...]) -> list[TaskStatus]:
        """The tasks in their order; those at work first if the terminal has no lines for all."""
        room = max(self._console.height - 7, 3)
        if len(tasks) <= room:
            return list(tasks)
        rank = {"leased": 0, "failed": 1, "pending": 2, "cancelled": 3, "done": 4}
        return sorted(tasks, key=lambda status: rank[status.state])[: room + 1]

    def _news(self, status: TaskStatus, is_over: bool, columns: int) -> Text:
        figures = describe_figures(status, is_over, self._clock())
        if status.state == "leased" and not is_over:
            figures.append(worker_name(status.worker))
        news = Text(", ".join(figures))
        note = Text(describe_note(status, is_over), style="red" if status.state == "failed" else "dim")
        note.truncate(max(MIN_NOTE_COLUMNS, columns - news.cell_len - 2), overflow="ellipsis")
        return news.append(", ") + note if news and note else news + note

    def _print_news(self, run_status: RunStatus, is_over: bool) -> None:
        for status in run_status.tasks:
            now: tuple[str, int, str, int] = (status.state, status.attempt, "", 0)
            if status.state == "leased" and status.num_epochs:
                stage = f"round {status.search['round']}" if status.search else ""
                step = 0 if stage else int(status.epoch / status.num_epochs / LINE_EVERY_SHARE)
                now = (status.state, status.attempt, stage, step)
            if self._said.get(status.task, self._unsaid) != now:
                self._said[status.task] = now
                self._console.print(
                    self._line(status, is_over), markup=False, highlight=False, soft_wrap=True
                )

    def _line(self, status: TaskStatus, is_over: bool) -> str:
        at = f" on {worker_name(status.worker)}" if status.state == "leased" and not is_over else ""
        said = [
            f"{status.task}: {describe_state(status, is_over)}{at}",
            *describe_figures(status, is_over, self._clock()),
        ]
        return ", ".join([*said, note] if (note := describe_note(status, is_over)) else said)


def _num_lines(text: str, columns: int) -> int:
    return max(1, -(-cell_len(text) // max(columns, 1)))
