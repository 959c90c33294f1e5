"""A write-ahead log of events on local disk: records that MLflow has not taken outlive this process.

Each driver has a file of its own, ``<name>.jsonl``, one event a line, and holds a lock beside it for as long
as it lives. A file whose lock is free belongs to a dead driver, and the next one takes it over.
"""

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orchestrator.events import Event
from orchestrator.line_files import append_lines
from orchestrator.private_files import make_private_folder, open_private

__all__ = ["Spool"]

_logger = logging.getLogger(__name__)
REJECTED = "rejected.log"


class Spool:
    """The log of one driver. Nothing is written before the first event.

    Methods raise ``OSError`` when the disk fails.

    Args:
        folder: Shared by all drivers of this home.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / f"{time.time_ns()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        self._lock: IO[bytes] | None = None

    def append(self, events: Iterable[Event]) -> None:
        """Add events at the end; they are on disk when this returns."""
        self._append(event.to_json() for event in events)

    def _append(self, lines: Iterable[str]) -> None:
        self._open()
        append_lines(self._path, lines, is_synced=True)

    def replace(self, events: Sequence[Event]) -> None:
        """Keep these events only."""
        if not events:
            self._path.unlink(missing_ok=True)
            return
        self._open()
        temporary = self._path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        append_lines(temporary, (event.to_json() for event in events), is_synced=True)
        os.replace(temporary, self._path)

    def take_leftovers(self) -> list[Event]:
        """Move the events of dead drivers into this log, and return them in the order of their drivers."""
        taken: list[Event] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            if path == self._path:
                continue
            with _claimed(path) as is_mine:
                if is_mine:
                    found = self._read(path)
                    self._append(found)
                    path.unlink(missing_ok=True)
                    taken += found.values()
        return taken

    def set_aside(self, lines: Iterable[str], cause: str) -> Path:
        """Keep unrecordable lines in a file for people; returns the file."""
        make_private_folder(self.folder)
        path = self.folder / REJECTED
        append_lines(path, [f"# {cause.splitlines()[0] if cause else 'unknown cause'}", *lines])
        return path

    def close(self) -> None:
        """Release the log; the next driver takes over the events that remain in it."""
        if self._lock is None:
            return
        if not self._path.exists():
            _lock_path(self._path).unlink(missing_ok=True)
        self._lock.close()
        self._lock = None

    def _open(self) -> None:
        """Take the lock, before there is a file that another driver could claim."""
        if self._lock is None:
            make_private_folder(self.folder)
            # Held for as long as this driver lives.
            self._lock = open(_lock_path(self._path), "ab", opener=open_private)  # noqa: SIM115
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _read(self, path: Path) -> dict[str, Event]:
        """Line to event."""
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return {}
        events: dict[str, Event] = {}
        unreadable = []
        for line in filter(None, lines):
            try:
                events[line] = Event.from_json(line)
            except (ValueError, TypeError):
                unreadable.append(line)
        if unreadable:
            # Most often the line that a dying driver was writing.
            aside = self.set_aside(unreadable, f"unreadable lines of {path.name}")
            _logger.warning("%d unreadable records of %s were set aside in %s", len(unreadable), path, aside)
        return events


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether the log's driver is dead and its log is ours; if so, the lock is gone at the end."""
    with open(_lock_path(path), "ab", opener=open_private) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        _lock_path(path).unlink(missing_ok=True)
