"""Objects as files under one folder.

A write goes to a hidden temporary name in the object's own folder, is synced, and then gets its name: with a
hard link where the name must be new (exclusive in the kernel, also over NFS), with a rename where it may be
replaced. What a killed writer leaves starts with a dot, which no key does.

There are no retries: errors of a disk are not transient, and the kernel retries those of NFS.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import ObjectMissing, StoreError, StoreFull
from orchestrator.private_files import make_folder_like, open_like_folder
from orchestrator.store.objects.protocol import (
    ListedObject,
    StoredObject,
    advice_for,
    check_key,
    check_prefix,
    check_temporary,
    conflict,
    etag_of,
    is_full,
    is_key,
    is_temporary,
    temporary_key,
    too_large,
)
from orchestrator.store.objects.stamps import Stamp, Stamps
from orchestrator.store.objects.traced import traced

__all__ = ["LocalObjects"]


class LocalObjects:
    """An ``ObjectStore`` in a folder, safe for many processes at once.

    Args:
        root: The folder; made by the first write, for this user alone. What is made in it gets its
            permissions, so that a store for several users is a folder that was made for them before.
        clock: Monotonic seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root.expanduser().resolve()
        self._stamps = Stamps(clock)

    @property
    def url(self) -> str:
        """``file://`` URL of the folder."""
        return self._root.as_uri()

    @traced
    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read a file."""
        path = self._path(key)
        with self._errors("read", key):
            try:
                size = path.stat().st_size
                if max_bytes is not None and size > max_bytes:
                    raise too_large(self.url, key, size, max_bytes)
                with path.open("rb") as file:
                    data = file.read(-1 if max_bytes is None else max_bytes + 1)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise ObjectMissing(f"{self.url}/{key}: no such object") from None
        if max_bytes is not None and len(data) > max_bytes:
            raise too_large(self.url, key, len(data), max_bytes)
        return StoredObject(data=data, etag=etag_of(data))

    @traced
    def get_unless(self, key: str, etag: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Read an object, unless it has that etag; a file that was read before is told by its stamp."""
        stamp = self._stamp(key)
        if stamp is not None and self._stamps.has(key, stamp, etag):
            return None
        stored = self.get(key, max_bytes=max_bytes)
        if stamp is not None and self._stamp(key) == stamp:
            self._stamps.note(key, stamp, stored.etag)
        return None if stored.etag == etag else stored

    @traced
    def exists(self, key: str) -> bool:
        """Whether the file is there."""
        path = self._path(key)
        with self._errors("look up", key):
            return path.is_file()

    @traced
    def put_new(self, key: str, data: bytes) -> bool:
        """Write a file that must not exist yet."""
        path = self._path(key)
        with self._errors("write", key), self._temporary(key, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _sync_folder(path.parent)
        return True

    @traced
    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Write or replace a file."""
        path = self._path(key)
        with self._errors("write", key), self._temporary(key, data) as temporary, _locked(path.parent):
            if if_match is not None and self._etag_now(path) != if_match:
                raise conflict(self.url, key)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        return etag_of(data)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""
        check_prefix(prefix)
        yield from (key for key in self._walk(prefix) if is_key(key))

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Files under ``prefix``, in order, with size and time."""
        check_prefix(prefix)
        yield from self._stat(key for key in self._walk(prefix) if is_key(key))

    def leftovers(self) -> Iterator[ListedObject]:
        """Temporary files."""
        yield from self._stat(key for key in self._walk("") if is_temporary(key))

    def drop_leftover(self, key: str) -> None:
        """Remove a temporary file, if it is there."""
        with self._errors("delete", key):
            (self._root / check_temporary(self.url, key)).unlink(missing_ok=True)

    @traced
    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        path = self._path(key)
        with self._errors("delete", key):
            path.unlink(missing_ok=True)

    def _walk(self, prefix: str) -> Sequence[str]:
        """Paths of all files that start with ``prefix``, in order, valid keys or not."""
        start = self._root / prefix.rpartition("/")[0]
        found: list[str] = []
        with self._errors("list", prefix):
            for folder, folders, names in os.walk(start, onerror=_raise_unless_gone):
                folders[:] = [name for name in folders if not name.startswith(".")]
                base = Path(folder).relative_to(self._root)
                found += [(base / name).as_posix() for name in names]
        return sorted(key for key in found if key.startswith(prefix))

    def _stat(self, keys: Iterable[str]) -> Iterator[ListedObject]:
        for key in keys:
            with self._errors("look up", key):
                try:
                    found = (self._root / key).stat()
                except FileNotFoundError:
                    continue
            yield ListedObject(key=key, num_bytes=found.st_size, modified_s=found.st_mtime)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _stamp(self, key: str) -> Stamp | None:
        """Stamp of a file, which changes with its content; None if it is not there."""
        try:
            # Opened: NFS answers a mere stat from a cache that may be a minute old.
            with self._path(key).open("rb") as file:
                found = os.fstat(file.fileno())
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _etag_now(self, path: Path) -> str | None:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    @contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[Path]:
        """A synced file with ``data`` beside that of ``key``, gone at the end unless it was renamed."""
        temporary = self._root / temporary_key(key)
        make_folder_like(self._root, temporary.parent)
        try:
            with open(temporary, "xb", opener=open_like_folder) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _errors(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = StoreFull if is_full(error) else StoreError
            raise kind(
                f"cannot {doing} {self.url}/{key}: {error.strerror or error}; {advice_for(error)}"
            ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The lock file stays: removing it would let two writers lock two files."""
    with open(folder / ".lock", "ab", opener=open_like_folder) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
