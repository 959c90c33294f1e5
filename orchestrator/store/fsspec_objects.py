"""Objects on any file system that fsspec has a driver for, such as ``gs://`` and ``memory://``.

A new object is made exclusively by the driver (``mode="create"``). fsspec has no guarded overwrite:
``if_match`` is checked and then written, so that two writers at the same moment may both succeed. Let one
process write the catalog of such a store.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec

from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.store.object_store import (
    StoredObject,
    check_key,
    check_prefix,
    conflict,
    is_key,
    too_large,
    without_secrets,
)

__all__ = ["FsspecObjects"]


class FsspecObjects:
    """An ``ObjectStore`` on a file system of fsspec.

    Args:
        url: Whatever fsspec takes.

    Raises:
        StoreError: fsspec does not know the protocol, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = without_secrets(url).rstrip("/")
        with self._errors("open", ""):
            self._fs, root = fsspec.url_to_fs(url)
        self._root: str = root.rstrip("/")

    @property
    def url(self) -> str:
        """URL of the root, without credentials."""
        return self._url

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object."""
        path = self._path(key)
        with self._errors("read", key):
            if max_bytes is not None and (size := self._fs.info(path)["size"]) > max_bytes:
                raise too_large(self._url, key, size, max_bytes)
            data: bytes = self._fs.cat_file(path)
        return StoredObject(data=data, etag=_etag(data))

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        path = self._path(key)
        with self._errors("look up", key):
            return bool(self._fs.isfile(path))

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist yet."""
        path = self._path(key)
        with self._errors("write", key):
            self._make_folder(path)
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Write or overwrite an object."""
        path = self._path(key)
        if if_match is not None and self._etag_now(key) != if_match:
            raise conflict(self.url, key)
        with self._errors("write", key):
            self._make_folder(path)
            self._fs.pipe_file(path, data)
        return _etag(data)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""
        check_prefix(prefix)
        start = f"{self._root}/{prefix.rpartition('/')[0]}".rstrip("/")
        with self._errors("list", prefix):
            try:
                # Other machines write too: a listing from a cache would miss what they published.
                self._fs.invalidate_cache()
                found = self._fs.find(start)
            except FileNotFoundError:
                found = []
        keys = (path.removeprefix(self._root).lstrip("/") for path in found)
        yield from sorted(key for key in keys if key.startswith(prefix) and is_key(key))

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        path = self._path(key)
        try:
            with self._errors("delete", key):
                self._fs.rm_file(path)
        except ObjectMissing:
            return

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _make_folder(self, path: str) -> None:
        """Object stores have no folders; those file systems that do want them made."""
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _etag_now(self, key: str) -> str | None:
        try:
            return self.get(key).etag
        except ObjectMissing:
            return None

    @contextmanager
    def _errors(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ObjectMissing(f"{self._url}/{key}: no such object") from error
        except StoreError:
            raise
        # A boundary: each driver raises what its own client raises, and they have no class in common.
        except Exception as error:
            raise StoreError(
                f"cannot {doing} {self._url}/{key}: {type(error).__name__}: {error}; check the URL, its "
                "credentials, and that fsspec's driver for it is installed"
            ) from error


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
