"""Files of a run's folder, as its driver and other terminals both read and write them: names, locks, JSON."""

import fcntl
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.private_files import replace_private

__all__ = [
    "POLL_S",
    "RUNS",
    "RUN_OF_EARLIER_VERSIONS",
    "About",
    "RunRequest",
    "find_runs",
    "is_locked",
    "read_json",
    "write_json",
]

RequestKind = Literal["cancel", "retry", "stop"]
RUNS, RUN_OF_EARLIER_VERSIONS = "runs", "run"
POLL_S = 0.1
# A status of a hundred thousand tasks.
_MAX_JSON_BYTES = 128 << 20


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


def find_runs(home: Path) -> list[tuple[About, Path]]:
    """Identities and folders of the runs that are kept: the one that is at work, then the newest."""
    found = []
    for place in (home / RUN_OF_EARLIER_VERSIONS / "about.json", *(home / RUNS).glob("*/about.json")):
        # One that was torn, or that another process removes now, is no run.
        with suppress(OSError, ValueError, TypeError):
            about = About(**read_json(place))
            found.append((is_locked(place.parent / "lock"), float(about.started_s), about, place.parent))
    in_order = sorted(found, key=lambda one: one[:2], reverse=True)
    return [(about, folder) for _, _, about, folder in in_order]


def is_locked(path: Path) -> bool:
    """Whether another process, or this one, holds a lock."""
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def read_json(path: Path) -> Any:
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


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    replace_private(path, json.dumps(value, default=list).encode())
