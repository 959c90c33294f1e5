"""Status, events and requests of a run, as files of its folder: the end of its driver.

One run at a time works in a home, which it locks for as long as its process lives. The folders of the last
runs are kept. Earlier versions had one folder, ``<home>/run``, with the same files. ``view`` is
the end of other terminals. Knows neither Ray nor MLflow::

    runs/lock                 held while a run is at work
    runs/<run>/lock           held while that run is at work
    runs/<run>/about.json     name, manifest, host, process and start of the run
    runs/<run>/plan.json      tasks to tune, to reuse and to refuse, with estimates
    runs/<run>/status.json    status of all tasks, renewed every second or two
    runs/<run>/events.jsonl   one event a line; about ten epochs a task
    runs/<run>/requests/      a file for each request; the run puts its answer beside it
"""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.line_files import append_lines
from orchestrator.private_files import make_private_folder, open_private
from orchestrator.train.ledger.status import RunStatus
from orchestrator.train.run.files import (
    POLL_S,
    RUN_OF_EARLIER_VERSIONS,
    RUNS,
    About,
    RunRequest,
    find_runs,
    is_locked,
    read_json,
    write_json,
)
from ship.redaction import redact_url, redact_values

__all__ = [
    "KEPT_RUNS",
    "RunFolder",
    "check_free",
    "hold_run",
]

STATUS_EVERY_S = 1.0
# Writing the status of ten thousand tasks takes long: never more than this share of the driver's time.
STATUS_SHARE = 0.05
EPOCHS_A_TASK = 10
KEPT_RUNS = 20
_NUM_TRIES = 5


class RunFolder:
    """The driver's end of the run folder.

    Attributes:
        folder: Folder of the run's files.

    Args:
        folder: ``<home>/runs/<run>``, locked by this process (``hold_run``).
        about: Identity of this run.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self.folder = folder
        self._next_status_s = 0.0
        self._latest: RunStatus | None = None
        shutil.rmtree(folder / "requests", ignore_errors=True)
        make_private_folder(folder / "requests")
        (folder / "status.json").unlink(missing_ok=True)
        write_json(folder / "about.json", asdict(about))
        self._events = folder / "events.jsonl"
        with open(self._events, "wb", opener=open_private):
            # Emptied; it is there for readers before the first event.
            pass

    def close(self) -> None:
        """Write the last status."""
        if self._latest is not None:
            self._write_status(self._latest)

    def plan(self, values: Mapping[str, Any]) -> None:
        """Write the plan; a full disk goes without."""
        with suppress(OSError):
            write_json(self.folder / "plan.json", redact_values(values))

    def log(self, events: Sequence[Event]) -> None:
        """Append events to the log; lines that a full disk does not take are dropped."""
        with suppress(OSError):
            append_lines(self._events, [event.to_json() for event in events if _is_worth_a_line(event)])

    def show(self, run_status: RunStatus) -> None:
        """Write the status, unless that was done a moment ago."""
        self._latest = run_status
        start_s = time.monotonic()
        if start_s >= self._next_status_s:
            self._write_status(run_status)
            end_s = time.monotonic()
            self._next_status_s = end_s + max(STATUS_EVERY_S, (end_s - start_s) / STATUS_SHARE)

    def _write_status(self, run_status: RunStatus) -> None:
        with suppress(OSError):
            # Not `asdict`, which copies each value of ten thousand tasks.
            tasks = [vars(status) for status in run_status.tasks]
            write_json(
                self.folder / "status.json", {"time_s": time.time(), **vars(run_status), "tasks": tasks}
            )

    def requests(self) -> Iterator[tuple[RunRequest, Callable[[Sequence[str]], None]]]:
        """New requests, oldest first, each with the function that answers it."""
        for path in sorted((self.folder / "requests").glob("*.ask")):
            try:
                request = _read_request(read_json(path))
            except (OSError, ValueError, TypeError, KeyError):
                request = None
            path.unlink(missing_ok=True)
            if request is not None:
                yield request, partial(_answer, path.with_suffix(".answer"))


def check_free(home: Path) -> None:
    """Check that no run is at work in a home now.

    Raises:
        ExecutionError: A run is.
    """
    if any(is_locked(home / place / "lock") for place in (RUNS, RUN_OF_EARLIER_VERSIONS)):
        raise _busy(home)


@contextmanager
def hold_run(home: Path, run: str, manifest: str, keep: int = KEPT_RUNS) -> Iterator[RunFolder]:
    """Make the folder of a run, and hold the home for the block.

    Args:
        home: Folder for everything local.
        run: Name of the run.
        manifest: Path of its manifest.
        keep: Number of runs whose folders stay, this one among them; those of older ones are removed.

    Raises:
        ExecutionError: Another run holds the home, or it cannot be written to.
    """
    check_free(home)
    folder = home / RUNS / run
    for each in (home, home / RUNS):
        make_private_folder(each)
    with open(home / RUNS / "lock", "ab", opener=open_private) as lock:
        _take(lock, home)
        with _hold_folder(home, folder, manifest, keep) as held:
            yield held


@contextmanager
def _hold_folder(home: Path, folder: Path, manifest: str, keep: int) -> Iterator[RunFolder]:
    _drop_old_runs(home, keep - 1)
    make_private_folder(folder)
    with open(folder / "lock", "ab", opener=open_private) as lock:
        _take(lock, home)
        about = About(
            run=folder.name,
            manifest=redact_url(manifest),
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=time.time(),
        )
        try:
            held = RunFolder(folder, about)
        except OSError as error:
            raise ExecutionError(
                f"{folder}: cannot be written to ({error}); free some space, or choose a folder with --home"
            ) from error
        try:
            yield held
        finally:
            held.close()


def _drop_old_runs(home: Path, keep: int) -> None:
    """Remove the folders, and the logs of Ray, of all runs but the newest."""
    for _, folder in find_runs(home)[max(keep, 0) :]:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.name == RUNS:
            shutil.rmtree(home / "logs" / folder.name, ignore_errors=True)


def _take(lock: IO[bytes], home: Path) -> None:
    # `RunView.is_at_work` takes the lock for a moment, too.
    for _ in range(_NUM_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(POLL_S)
        else:
            return
    raise _busy(home)


def _busy(home: Path) -> ExecutionError:
    run = "just started"
    if found := find_runs(home):
        other, _ = found[0]
        run = f"{other.manifest}, process {other.pid} on {other.host}"
    return ExecutionError(
        f"another `ship tune` runs in {home} ({run}): watch it with `ship status`, end it with "
        "`ship cancel`, or choose another folder with --home"
    )


def _is_worth_a_line(event: Event) -> bool:
    if event.kind == "search":
        return bool(event.data["is_new_round"])
    if event.kind != "epoch":
        return True
    epoch, num_epochs = int(event.data["epoch"]), int(event.data["num_epochs"])
    return epoch == num_epochs or epoch % max(1, num_epochs // EPOCHS_A_TASK) == 0


def _read_request(value: dict[str, Any]) -> RunRequest:
    if value["kind"] not in ("cancel", "retry", "stop"):
        raise ValueError(f"unknown request {value['kind']!r}")
    return RunRequest(kind=value["kind"], tasks=tuple(str(task) for task in value["tasks"]))


def _answer(place: Path, tasks: Sequence[str]) -> None:
    """Answer a request, unless the disk is full: the terminal then waits in vain, but the run goes on."""
    with suppress(OSError):
        write_json(place, list(tasks))
