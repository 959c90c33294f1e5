"""Runs as other terminals see them: their status, their events, and requests to the one that is at work.

``folder`` names the files, which the run's driver writes.
"""

import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.train.ledger.status import RunStatus, TaskStatus
from orchestrator.train.run.files import (
    POLL_S,
    RUNS,
    About,
    RunRequest,
    find_runs,
    is_locked,
    read_json,
    write_json,
)

__all__ = ["RunView", "list_runs"]

_logger = logging.getLogger(__name__)
_TAIL_BYTES = 1 << 20


class RunView:
    """Another terminal's end of the run folder.

    Args:
        home: Folder for everything local.
        run: Name of a run that is kept; None for the one that is at work, or was last.

    Raises:
        ExecutionError: No run of that name is kept.
    """

    def __init__(self, home: Path, run: str | None = None) -> None:
        self._home = home
        found = {about.run: (about, folder) for about, folder in find_runs(home)}
        if run is not None and run not in found:
            close = get_close_matches(run, found, n=1)
            hint = f"did you mean {close[0]}?" if close else "`ship runs` lists those that are kept"
            raise ExecutionError(f"no run {run!r} in {home}; {hint}")
        self._about: About | None = None
        self._folder = home / RUNS / "none"
        if found:
            self._about, self._folder = found[run] if run is not None else next(iter(found.values()))

    @property
    def is_at_work(self) -> bool:
        """Whether the process of the run holds its lock."""
        return is_locked(self._folder / "lock")

    def about(self) -> About:
        """Identity of the run.

        Raises:
            ExecutionError: There has been no run in this home.
        """
        if self._about is None:
            raise ExecutionError(
                f"no run in {self._home}: start one with `ship tune MANIFEST`, or name the folder of another "
                "with --home"
            )
        return self._about

    def status(self) -> tuple[RunStatus, float] | None:
        """Status of its tasks, and when it was written; None before the first.

        Once the run is over, tasks that it left have no lease any more: they are pending.
        """
        is_over = not self.is_at_work
        try:
            said = read_json(self._folder / "status.json")
        except FileNotFoundError:
            return None
        time_s = said.pop("time_s")
        said["tasks"] = tuple(_read_task(status, is_over) for status in said["tasks"])
        said["workers"] = {int(seat): worker for seat, worker in said["workers"].items()}
        said["evicted"] = frozenset(said["evicted"])
        return RunStatus(**said), time_s

    def plan(self) -> dict[str, Any] | None:
        """The plan, see ``run_plan``; None of a run of an earlier version."""
        return self._read("plan.json")

    def report(self) -> dict[str, Any] | None:
        """The document of its report, see ``orchestrator.report.document``; None while there is none."""
        return self._read("report.json")

    def page(self) -> bytes | None:
        """The report as a page of HTML; None while there is none."""
        with suppress(OSError):
            return (self._folder / "report.html").read_bytes()
        return None

    def events(self, task: str | None = None, *, follow: bool = False) -> Iterator[Event]:
        """Events so far, and with ``follow`` those until the run ends; a torn line is skipped and logged."""
        with (self._folder / "events.jsonl").open(encoding="utf-8", errors="replace") as file:
            rest = ""
            while True:
                was_at_work = follow and self.is_at_work
                rest += file.read()
                *lines, rest = rest.split("\n")
                for event in map(_read_event, filter(None, lines)):
                    if event is not None and (task is None or event.task == task):
                        yield event
                if not was_at_work:
                    if rest and not self.is_at_work:
                        _read_event(rest)
                    return
                time.sleep(POLL_S)

    def last_events(self, limit: int) -> list[Event]:
        """The last events, oldest first: at most so many, and of the last megabyte of the log."""
        with suppress(FileNotFoundError), (self._folder / "events.jsonl").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").split("\n")
            # The first line may have begun before, and the last one is being written.
            whole = lines[size > _TAIL_BYTES : -1]
            return [event for event in map(_read_event, whole[-limit:]) if event is not None]
        return []

    def ask(self, request: RunRequest, patience_s: float = 30.0) -> tuple[str, ...]:
        """Send a request to the run, and wait for its answer: the tasks that changed.

        Raises:
            ExecutionError: No run holds the folder, or it does not answer.
        """
        if not self.is_at_work:
            raise ExecutionError(
                f"no `ship tune` runs in {self._home}; name the folder of its run with --home"
            )
        place = self._folder / "requests" / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.ask"
        write_json(place, asdict(request))
        answer, deadline_s = place.with_suffix(".answer"), time.monotonic() + patience_s
        while not answer.exists():
            if time.monotonic() > deadline_s or not self.is_at_work:
                place.unlink(missing_ok=True)
                raise ExecutionError(f"the run in {self._home} did not answer for {patience_s:g} s")
            time.sleep(POLL_S)
        tasks = read_json(answer)
        answer.unlink(missing_ok=True)
        return tuple(tasks)

    def _read(self, name: str) -> dict[str, Any] | None:
        """A document of the folder; None where it is not there, or is none."""
        with suppress(OSError, ValueError):
            found = read_json(self._folder / name)
            return found if isinstance(found, dict) else None
        return None


def list_runs(home: Path) -> list[About]:
    """The runs of a home that are kept, newest first."""
    return [about for about, _ in find_runs(home)]


def _read_event(line: str) -> Event | None:
    try:
        return Event.from_json(line)
    except (ValueError, TypeError):
        _logger.warning("events.jsonl: a line that a killed run or a full disk tore is skipped")
        return None


def _read_task(values: dict[str, Any], is_over: bool) -> TaskStatus:
    known = {field.name for field in fields(TaskStatus)}
    # An older version's status had other fields, and under `accuracy` that of the training images.
    if "probe_accuracy" not in values:
        known.remove("accuracy")
    status = TaskStatus(**{name: value for name, value in values.items() if name in known})
    if not is_over or status.state != "leased":
        return status
    return replace(status, state="pending", search=None, train_accuracy=None)
