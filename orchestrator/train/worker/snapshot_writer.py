"""Writes a task's snapshots beside its tuning: a slow store must not hold up the pack that the task is in."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

__all__ = ["SnapshotWriter"]


class SnapshotWriter:
    """One write at a time, of the newest snapshot; those that a slow store leaves no time for are skipped.

    A context manager. At its end nothing is being written any more: after an error the newest snapshot was
    written, for whoever goes on from it; after success it is of no use, and is not.

    Args:
        save: Writes a snapshot. If it raises, the next ``put`` does, or the end.
    """

    def __init__(self, save: Callable[[bytes], None]) -> None:
        self._save = save
        self._lock = threading.Lock()
        self._newest: bytes | None = None
        self._error: Exception | None = None
        self._writing: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1, "ship-snapshot")

    def put(self, content: bytes) -> None:
        """Have a snapshot written.

        Raises:
            Exception: An earlier one could not be written, for this reason.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            self._newest = content
            if self._writing is None:
                self._writing = self._pool.submit(self._write)

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until nothing is being written."""
        if kind is None:
            with self._lock:
                self._newest = None
        self._pool.shutdown()
        if kind is None and self._error is not None:
            raise self._error

    def _write(self) -> None:
        while True:
            with self._lock:
                content, self._newest = self._newest, None
                if content is None or self._error is not None:
                    self._writing = None
                    return
            try:
                self._save(content)
            # Whatever it is, it is told to whoever puts the next one.
            except Exception as error:
                with self._lock:
                    self._error = error
