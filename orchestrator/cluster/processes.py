"""Child processes that Ray started for us: finding them by their command line, and ending them."""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

__all__ = ["end_processes", "find_processes", "start_in_two_tries"]

_log = logging.getLogger(__name__)


def find_processes(mark: str, among: Iterable[psutil.Process] | None = None) -> list[psutil.Process]:
    """Processes with ``mark`` in their command line, and all their descendants.

    Args:
        mark: Word, or a part of one.
        among: Processes to look at; None for the children of this process.
    """
    found: list[psutil.Process] = []
    for child in psutil.Process().children() if among is None else among:
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


def start_in_two_tries(start: Callable[[], object], mark: str) -> None:
    """Start processes, with a second try: now and then Ray waits for a process of its own that has died.

    Args:
        start: Starts the processes, or raises.
        mark: Word in their command lines, by which those of a failed start are ended.
    """
    try:
        start()
    except Exception as error:
        _log.warning("%s; trying once more", error)
        end_processes(find_processes(mark))
        start()
