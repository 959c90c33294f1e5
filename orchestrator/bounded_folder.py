"""A least-recently-used cache of files in a local folder, bounded in bytes.

When it is full, more files go than have to, so that thousands of files are not listed for each new one. A
file is whole or not there, and several processes may read it at once. Their content is opaque to the cache.
"""

import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from orchestrator.private_files import make_private_folder

__all__ = ["BoundedFolder"]

# Of the limit: what is left when something had to go.
_LOW_WATER = 0.9


class BoundedFolder:
    """The cache; its folder is made by the first write. Folders inside it are left alone.

    Args:
        folder: Folder of this user alone.
        limit_bytes: Limit of all files together; 0 keeps none.
        look_every: How many files are kept from one look at the folder to the next. Above 1 the limit may be
            passed by what other processes keep meanwhile; with thousands of small files each look is long.
    """

    def __init__(self, folder: Path, limit_bytes: int, look_every: int = 1) -> None:
        self._folder, self._limit_bytes, self._look_every = folder, limit_bytes, look_every
        self._lock = threading.Lock()
        # As far as is known since the last look.
        self._num_bytes = self._num_kept = 0

    @property
    def limit_bytes(self) -> int:
        """Limit of all files together."""
        return self._limit_bytes

    def path(self, name: str) -> Path:
        """Path of a file, if it is kept."""
        return self._folder / name

    def keep(self, name: str, num_bytes: int, write: Callable[[Path], object]) -> None:
        """Keep a file, if the limit is not below its size; those used least recently make room for it.

        Args:
            name: Plain, without folders.
            num_bytes: About its size.
            write: Writes it, to the path that it is given.

        Raises:
            OSError: The disk is full or fails, or is not ours to write to. Nothing is left behind.
        """
        if num_bytes > self._limit_bytes:
            return
        path = self.path(name)
        temporary = path.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
        try:
            make_private_folder(self._folder)
            self._make_room(num_bytes)
            write(temporary)
            # Its folder is closed anyway, where the file system has permissions.
            with suppress(OSError):
                temporary.chmod(0o600)
            os.replace(temporary, path)
        finally:
            # Not there any more, unless something went wrong.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def note_use(self, name: str) -> None:
        """A file was used just now."""
        with suppress(OSError):
            os.utime(self.path(name))

    def drop(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(OSError):
            self.path(name).unlink(missing_ok=True)

    def _make_room(self, num_bytes: int) -> None:
        with self._lock:
            is_known = 0 < self._num_kept < self._look_every
            if not (is_known and self._num_bytes + num_bytes <= self._limit_bytes):
                self._num_bytes, self._num_kept = self._shrink(num_bytes), 0
            self._num_bytes += num_bytes
            self._num_kept += 1

    def _shrink(self, num_bytes: int) -> int:
        """Make room, if there is none, beyond what is needed; returns the bytes that are there then.

        What was used least recently goes, leftovers of killed writers too.
        """
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        facts = entry.stat(follow_symlinks=False)
                        files.append((facts.st_mtime, facts.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        if total + num_bytes <= self._limit_bytes:
            return total
        for _, size, path in sorted(files):
            if total + num_bytes <= _LOW_WATER * self._limit_bytes:
                break
            # A process that reads it keeps its open file.
            Path(path).unlink(missing_ok=True)
            total -= size
        return total
