"""A folder of files on this machine that can all be had again: what was used last stays within its limit.

A file is whole or not there, and read by several processes at once. It knows nothing of what is in them.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["BoundedFolder"]


class BoundedFolder:
    """The folder; made when it is first written to. Folders inside it are somebody else's.

    Args:
        folder: Of this user alone.
        limit_bytes: Of all files together; 0 keeps none.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes

    @property
    def limit_bytes(self) -> int:
        """Of all files together."""
        return self._limit_bytes

    def path(self, name: str) -> Path:
        """Where a file is, if it is kept."""
        return self._folder / name

    def keep(self, name: str, num_bytes: int, write: Callable[[Path], None]) -> None:
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
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(num_bytes)
            write(temporary)
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
        """Remove what was used least recently, leftovers of killed writers too."""
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        facts = entry.stat(follow_symlinks=False)
                        files.append((facts.st_mtime, facts.st_size, entry.path))
        total = sum(size for _, size, _ in files) + num_bytes
        for _, size, path in sorted(files):
            if total <= self._limit_bytes:
                return
            # Whoever is reading it keeps what it has open.
            Path(path).unlink(missing_ok=True)
            total -= size
