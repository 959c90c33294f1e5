"""Processes that somebody started for us, found by a word in their command line, and their end."""

from contextlib import suppress

import psutil

__all__ = ["end_processes", "find_processes"]


def find_processes(mark: str) -> list[psutil.Process]:
    """Children of this process with ``mark`` in their command line, and all that descends from them."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        # It may end at any time.
        with suppress(psutil.Error):
            if any(mark in word for word in child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return found


def end_processes(processes: list[psutil.Process], patience_s: float = 10.0) -> None:
    """Wait for processes that were told to end, and kill those that do not."""
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=patience_s)
