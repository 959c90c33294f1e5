"""A server in a process group of its own: started, watched as a tree of processes, and stopped whole."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

__all__ = ["Server", "ServerError", "running", "wait_until"]

ROOT = Path(__file__).parents[4]
_START_S, _STOP_S, _KILL_S, _LOOK_S = 600.0, 40.0, 5.0, 0.2
# What would change a server, or belongs to another one.
_NOT_INHERITED = ("SHIP_", "MLFLOW_", "RAY_", "OMP_", "MKL_")


class ServerError(RuntimeError):
    """A server that did not start, with the end of its log."""


class Server:
    """A tree of processes.

    Args:
        process: Its root.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    @property
    def is_alive(self) -> bool:
        """Whether the root runs."""
        with suppress(psutil.NoSuchProcess):
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        return False

    def tree(self) -> list[psutil.Process]:
        """All processes."""
        with suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def memory_bytes(self) -> int:
        """Resident memory; a shared page counts once, divided among its processes (PSS)."""
        total = 0
        for process in self.tree():
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def cpu_s(self) -> float:
        """CPU time of all processes that run now."""
        total = 0.0
        for process in self.tree():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Run a server for the block; every process below it is gone afterwards."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    with log.open("wb") as output:
        child = subprocess.Popen(
            list(command),
            cwd=log.parent,
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(psutil.Process(child.pid))
    try:
        yield server
    finally:
        _stop(child, server)


def wait_until(is_ready: Callable[[], bool], server: Server, log: Path, timeout_s: float = _START_S) -> None:
    """Wait for a function to return true.

    Raises:
        ServerError: The server ended, or was not ready in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_ready():
        if not server.is_alive or time.monotonic() > deadline_s:
            raise ServerError(log.read_text(errors="replace")[-3000:])
        time.sleep(_LOOK_S)


def _stop(child: "subprocess.Popen[bytes]", server: Server) -> None:
    processes = server.tree()
    child.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_S)
    # psutil compares the time of creation: a process id that was given anew is left alone.
    _, left = psutil.wait_procs([each for each in processes if each.pid != child.pid], timeout=_KILL_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_KILL_S)
    if child.poll() is None:
        child.kill()
        child.wait()
