"""Background writer of a task's snapshots, so that a slow store does not hold up the task's pack."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

__all__ = ["SnapshotWriter"]


class SnapshotWriter:
    """Writes one snapshot at a time, the newest; older ones are skipped while the store is busy.

    A context manager that ends once nothing is being written. After an error the newest snapshot has been
    written, so that another worker can resume; after success it is not needed, and is dropped.

    Args:
        save: Writes a snapshot. The next ``put``, or the end of the block, raises its exception.
    """

    def __init__(self, save: Callable[[bytes], None]) -> None:
        self._save = save
        self._lock = threading.Lock()
        self._newest: bytes | None = None
        self._error: Exception | None = None
        self._writing: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1, "ship-snapshot")

    def put(self, content: bytes) -> None:
        """Queue a snapshot in place of one that waits.

        Raises:
            Exception: The exception of an earlier write.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            self._newest = content
            if self._writing is None:
                self._writing = self._pool.submit(self._save_newest)

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the write under way."""
        if kind is None:
            with self._lock:
                self._newest = None
        self._pool.shutdown()
        if kind is None and self._error is not None:
            raise self._error

    def _save_newest(self) -> None:
        while True:
            with self._lock:
                content, self._newest = self._newest, None
                if content is None or self._error is not None:
                    self._writing = None
                    return
            try:
                self._save(content)
            # The next `put` raises it.
            except Exception as error:
                with self._lock:
                    self._error = error
