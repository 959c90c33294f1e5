"""Account of a run's time from its events, and of its memory's growth with the number of tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.events import Event
from orchestrator.train.run.view import RunView
from tests.benchmarks.fleet.watch import Sample

__all__ = ["Account", "growth_kb", "make_account", "read_account", "read_events"]


@dataclass(frozen=True, kw_only=True)
class Account:
    """Phases of a run. A worker's second is one second of one of ``num_workers`` workers.

    Attributes:
        num_tasks: Number of published tasks.
        num_workers: Number of workers.
        start_up_s: Seconds from the start of the run to the first lease.
        work_s: Seconds from there to the last publication.
        tail_s: Seconds from there until the run returned: last records, and the end of the pool.
        tuning_s: Sum of the artifacts' ``tuning_s``: preparation, evaluation and each task's share of the
            steps of a pack.
        published_s: Publication times in order, seconds since the epoch.
    """

    num_tasks: int
    num_workers: int
    start_up_s: float
    work_s: float
    tail_s: float
    tuning_s: float
    published_s: tuple[float, ...]

    @property
    def run_s(self) -> float:
        """Seconds of the whole run."""
        return self.start_up_s + self.work_s + self.tail_s

    def breakdown(self) -> dict[str, float]:
        """Worker's seconds a task by phase."""
        shares = {
            "start-up": self.start_up_s * self.num_workers,
            "tuning": self.tuning_s,
            "beside tuning": self.work_s * self.num_workers - self.tuning_s,
            "after the last publication": self.tail_s * self.num_workers,
        }
        return {name: round(seconds / self.num_tasks, 4) for name, seconds in shares.items()}


def read_account(folder: Path, began_s: float, ended_s: float, num_workers: int) -> Account:
    """Account of the run whose home is in ``folder``."""
    return make_account(read_events(folder), began_s, ended_s, num_workers)


def make_account(events: Iterable[Event], began_s: float, ended_s: float, num_workers: int) -> Account:
    """Account of a run."""
    published: list[float] = []
    first_s, tuning_s = ended_s, 0.0
    for event in events:
        if event.kind == "leased":
            first_s = min(first_s, event.time_s)
        elif event.kind == "published":
            published.append(event.time_s)
            tuning_s += float(event.data["metrics"]["tuning_s"])
    last_s = max(published, default=first_s)
    return Account(
        num_tasks=len(published),
        num_workers=num_workers,
        start_up_s=first_s - began_s,
        work_s=last_s - first_s,
        tail_s=ended_s - last_s,
        tuning_s=tuning_s,
        published_s=tuple(sorted(published)),
    )


def read_events(folder: Path) -> list[Event]:
    """Events of the last run whose home is in ``folder``, without epochs."""
    return [event for event in RunView(folder / "home").events() if event.kind != "epoch"]


def growth_kb(samples: Sequence[Sample], published_s: Sequence[float], kind: str) -> tuple[float, float]:
    """Kilobytes of a kind of process when a tenth of the tasks was published, and at the last publication.

    After a tenth of the tasks everything that is loaded once has been loaded.
    """
    if not published_s:
        return 0.0, 0.0
    tenth_s, last_s = published_s[len(published_s) // 10], published_s[-1]
    held = [(sample.time_s, sample.kb[kind]) for sample in samples if kind in sample.kb]
    return _held_at(held, tenth_s), _held_at(held, last_s)


def _held_at(held: Sequence[tuple[float, float]], time_s: float) -> float:
    return min(held, key=lambda pair: abs(pair[0] - time_s))[1] if held else 0.0
