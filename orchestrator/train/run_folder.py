"""Status, events and requests of a run, as files of its folder that other terminals read and write.

One run at a time works in a home, which it locks for as long as its process lives. The folders of the last
runs are kept. Earlier versions had one folder, ``<home>/run``, with the same files. Knows neither Ray nor
MLflow::

    runs/lock                 held while a run is at work
    runs/<run>/lock           held while that run is at work
    runs/<run>/about.json     name, manifest, host, process and start of the run
    runs/<run>/status.json    status of all tasks, renewed every second or two
    runs/<run>/events.jsonl   one event a line; about ten epochs a task
    runs/<run>/requests/      a file for each request; the run puts its answer beside it
"""

import fcntl
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.line_files import append_lines
from orchestrator.private_files import make_private_folder, open_private
from orchestrator.train.ledger.status import RunStatus, TaskStatus
from ship.redaction import redact_url

__all__ = [
    "KEPT_RUNS",
    "About",
    "RunFolder",
    "RunRequest",
    "RunView",
    "check_free",
    "hold_run",
    "list_runs",
]

RequestKind = Literal["cancel", "retry", "stop"]
STATUS_EVERY_S = 1.0
# Writing the status of ten thousand tasks takes long: never more than this share of the driver's time.
STATUS_SHARE = 0.05
EPOCHS_A_TASK = 10
KEPT_RUNS = 20
_RUNS, _RUN_OF_EARLIER_VERSIONS = "runs", "run"
_POLL_S = 0.1
_NUM_TRIES = 5
# A status of a hundred thousand tasks.
_MAX_JSON_BYTES = 128 << 20
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class About:
    """Identity of a run.

    Attributes:
        run: Name of the run.
        manifest: Path of the manifest.
        host: Host of its driver.
        pid: Process id of its driver.
        started_s: Seconds since the epoch.
    """

    run: str
    manifest: str
    host: str
    pid: int
    started_s: float


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A request of another terminal to a run.

    Attributes:
        kind: ``cancel`` or ``retry`` tasks, or ``stop`` the run.
        tasks: Names of tasks; empty for all that the kind applies to.
    """

    kind: RequestKind
    tasks: tuple[str, ...] = ()


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
        _write_json(folder / "about.json", asdict(about))
        self._events = folder / "events.jsonl"
        with open(self._events, "wb", opener=open_private):
            # Emptied; it is there for readers before the first event.
            pass

    def close(self) -> None:
        """Write the last status."""
        if self._latest is not None:
            self._write_status(self._latest)

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
            _write_json(
                self.folder / "status.json", {"time_s": time.time(), **vars(run_status), "tasks": tasks}
            )

    def requests(self) -> Iterator[tuple[RunRequest, Callable[[Sequence[str]], None]]]:
        """New requests, oldest first, each with the function that answers it."""
        for path in sorted((self.folder / "requests").glob("*.ask")):
            try:
                request = _read_request(_read_json(path))
            except (OSError, ValueError, TypeError, KeyError):
                request = None
            path.unlink(missing_ok=True)
            if request is not None:
                yield request, partial(_answer, path.with_suffix(".answer"))


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
        found = {about.run: (about, folder) for about, folder in _find_runs(home)}
        if run is not None and run not in found:
            close = get_close_matches(run, found, n=1)
            hint = f"did you mean {close[0]}?" if close else "`ship runs` lists those that are kept"
            raise ExecutionError(f"no run {run!r} in {home}; {hint}")
        self._about: About | None = None
        self._folder = home / _RUNS / "none"
        if found:
            self._about, self._folder = found[run] if run is not None else next(iter(found.values()))

    @property
    def is_at_work(self) -> bool:
        """Whether the process of the run holds its lock."""
        return _is_locked(self._folder / "lock")

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
            said = _read_json(self._folder / "status.json")
        except FileNotFoundError:
            return None
        time_s = said.pop("time_s")
        said["tasks"] = tuple(_read_task(status, is_over) for status in said["tasks"])
        said["workers"] = {int(seat): worker for seat, worker in said["workers"].items()}
        said["evicted"] = frozenset(said["evicted"])
        return RunStatus(**said), time_s

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
                time.sleep(_POLL_S)

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
        _write_json(place, asdict(request))
        answer, deadline_s = place.with_suffix(".answer"), time.monotonic() + patience_s
        while not answer.exists():
            if time.monotonic() > deadline_s or not self.is_at_work:
                place.unlink(missing_ok=True)
                raise ExecutionError(f"the run in {self._home} did not answer for {patience_s:g} s")
            time.sleep(_POLL_S)
        tasks = _read_json(answer)
        answer.unlink(missing_ok=True)
        return tuple(tasks)


def list_runs(home: Path) -> list[About]:
    """The runs of a home that are kept, newest first."""
    return [about for about, _ in _find_runs(home)]


def check_free(home: Path) -> None:
    """Check that no run is at work in a home now.

    Raises:
        ExecutionError: A run is.
    """
    if any(_is_locked(home / place / "lock") for place in (_RUNS, _RUN_OF_EARLIER_VERSIONS)):
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
    folder = home / _RUNS / run
    for each in (home, home / _RUNS):
        make_private_folder(each)
    with open(home / _RUNS / "lock", "ab", opener=open_private) as lock:
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


def _find_runs(home: Path) -> list[tuple[About, Path]]:
    """Identities and folders of the runs that are kept: the one that is at work, then the newest."""
    found = []
    for place in (home / _RUN_OF_EARLIER_VERSIONS / "about.json", *(home / _RUNS).glob("*/about.json")):
        # One that was torn, or that another process removes now, is no run.
        with suppress(OSError, ValueError, TypeError):
            about = About(**_read_json(place))
            found.append((_is_locked(place.parent / "lock"), float(about.started_s), about, place.parent))
    in_order = sorted(found, key=lambda one: one[:2], reverse=True)
    return [(about, folder) for _, _, about, folder in in_order]


def _drop_old_runs(home: Path, keep: int) -> None:
    """Remove the folders, and the logs of Ray, of all runs but the newest."""
    for _, folder in _find_runs(home)[max(keep, 0) :]:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.name == _RUNS:
            shutil.rmtree(home / "logs" / folder.name, ignore_errors=True)


def _is_locked(path: Path) -> bool:
    """Whether another process, or this one, holds a lock."""
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _take(lock: IO[bytes], home: Path) -> None:
    # `RunView.is_at_work` takes the lock for a moment, too.
    for _ in range(_NUM_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S)
        else:
            return
    raise _busy(home)


def _busy(home: Path) -> ExecutionError:
    try:
        other = RunView(home).about()
        run = f"{other.manifest}, process {other.pid} on {other.host}"
    except ExecutionError:
        run = "just started"
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


def _read_request(value: dict[str, Any]) -> RunRequest:
    if value["kind"] not in ("cancel", "retry", "stop"):
        raise ValueError(f"unknown request {value['kind']!r}")
    return RunRequest(kind=value["kind"], tasks=tuple(str(task) for task in value["tasks"]))


def _answer(place: Path, tasks: Sequence[str]) -> None:
    """Answer a request, unless the disk is full: the terminal then waits in vain, but the run goes on."""
    with suppress(OSError):
        _write_json(place, list(tasks))


def _read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: It is no JSON, or larger than any that is written here.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_JSON_BYTES + 1)
    if len(content) > _MAX_JSON_BYTES:
        raise ValueError(f"{path}: expected at most {_MAX_JSON_BYTES} bytes")
    return json.loads(content)


def _write_json(path: Path, value: object) -> None:
    """Replace a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8", opener=open_private) as file:
        file.write(json.dumps(value, default=list))
    os.replace(temporary, path)
