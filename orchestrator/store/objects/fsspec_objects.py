"""Objects on any file system that fsspec has a driver for, such as ``gs://`` and ``memory://``.

Where a put is one request, it is atomic, and a new object is made exclusively by the driver
(``mode="create"``). Any other driver may write in place: there an object is written under a temporary name,
read back, and renamed. That is atomic where the driver renames (sftp, smb, hdfs), but two writers of one new
name may both succeed.

fsspec has no guarded overwrite: ``if_match`` is checked and then written, so that two writers at the same
moment may both succeed. Let one process write the catalog of such a store.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from typing import TypeVar

import fsspec
from fsspec.spec import AbstractFileSystem

from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.store.objects.patience import TRANSIENT_STATUSES, GaveUp, Patience
from orchestrator.store.objects.protocol import (
    ListedObject,
    StoredObject,
    check_key,
    check_prefix,
    check_temporary,
    conflict,
    etag_of,
    is_key,
    is_temporary,
    temporary_key,
    too_large,
)
from orchestrator.store.objects.traced import traced
from ship.data.paths import below
from ship.redaction import Url

__all__ = ["FsspecObjects"]

Result = TypeVar("Result")
_ATOMIC_PROTOCOLS = {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a"}
_HOSTLESS_PROTOCOLS = {"memory", "local", "file"}
# Where drivers keep an object's ETag, checksum or generation.
_TAGS = ("ETag", "etag", "md5", "md5Hash", "content_md5", "checksum", "crc32c", "generation")
# Where clients of HTTP keep the status: gcsfs, aiohttp, requests and Azure's.
_STATUS_NAMES = ("code", "status", "status_code")


class FsspecObjects:
    """An ``ObjectStore`` on a file system of fsspec.

    Args:
        url: Any URL that fsspec takes.
        patience: Retry policy of transient errors.

    Raises:
        StoreError: fsspec does not know the protocol, its driver is not installed, or it does not read the
            URL as it is written.
    """

    def __init__(self, url: str, *, patience: Patience | None = None) -> None:
        self._secret_url = Url(url)
        self._url = str(self._secret_url).rstrip("/")
        self._patience = patience or Patience()
        self._check_text()
        with self._errors("open", ""):
            self._fs, root = fsspec.url_to_fs(self._secret_url.reveal())
        self._root: str = root.rstrip("/")
        self._check_root()
        # Of what was read last, by key: the driver's tag and ours.
        self._etags: dict[str, tuple[str, str]] = {}
        self._is_atomic = not self._protocols.isdisjoint(_ATOMIC_PROTOCOLS)

    @property
    def _protocols(self) -> set[str]:
        protocols = self._fs.protocol
        return {protocols} if isinstance(protocols, str) else set(protocols)

    @property
    def url(self) -> str:
        """URL of the root, without credentials."""
        return self._url

    @traced
    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object."""
        path = self._path(key)

        def read() -> StoredObject:
            if max_bytes is not None and (size := self._fs.info(path)["size"]) > max_bytes:
                raise too_large(self._url, key, size, max_bytes)
            data: bytes = self._fs.cat_file(path)
            if max_bytes is not None and len(data) > max_bytes:
                raise too_large(self._url, key, len(data), max_bytes)
            return StoredObject(data=data, etag=etag_of(data))

        return self._run("read", key, read)

    @traced
    def get_unless(self, key: str, etag: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Read an object, unless it has that etag; the driver's own tag tells it, where there is one."""
        tag = self._tag(key)
        if tag is not None and self._etags.get(key) == (tag, etag):
            return None
        # What is read is what the tag was of, or newer: then the next look sees another tag, and reads again.
        stored = self.get(key, max_bytes=max_bytes)
        if tag is not None:
            self._etags[key] = tag, stored.etag
        return None if stored.etag == etag else stored

    @traced
    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        path = self._path(key)
        return self._run("look up", key, lambda: bool(self._fs.isfile(path)))

    @traced
    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist yet."""
        path, tries = self._path(key), count(1)

        def write() -> bool:
            is_first = next(tries) == 1
            try:
                self._write(key, path, data, is_new=True)
            except FileExistsError:
                # A try whose answer was lost may have made it.
                return not is_first and self._etag_now(path) == etag_of(data)
            return True

        return self._run("write", key, write)

    @traced
    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Write or overwrite an object."""
        path = self._path(key)

        def write() -> str:
            # The very content that is to be written is there after a try whose answer was lost.
            if if_match is not None and self._etag_now(path) not in (if_match, etag_of(data)):
                raise conflict(self.url, key)
            self._write(key, path, data, is_new=False)
            return etag_of(data)

        return self._run("write", key, write)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""
        check_prefix(prefix)
        yield from sorted(key for key in self._find(prefix) if is_key(key))

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Objects under ``prefix``, in order, with size and time."""
        return self._look_up(self.list(prefix))

    def leftovers(self) -> Iterator[ListedObject]:
        """Temporary objects."""
        return self._look_up(sorted(key for key in self._find("") if is_temporary(key)))

    def drop_leftover(self, key: str) -> None:
        """Remove a temporary object, if it is there."""
        path = f"{self._root}/{check_temporary(self._url, key)}"
        with suppress(ObjectMissing):
            self._run("delete", key, lambda: self._fs.rm_file(path))

    @traced
    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        path = self._path(key)
        with suppress(ObjectMissing):
            self._run("delete", key, lambda: self._fs.rm_file(path))

    def _check_text(self) -> None:
        """Refuse a URL that fsspec would take apart, or that is one of several of a folder."""
        url = self._secret_url.reveal()
        path = url.partition("://")[2].removeprefix("/").rstrip("/")
        if "?" in url or "::" in url or (path and {"", ".", ".."} & set(path.split("/"))):
            raise StoreError(
                f"store {self._url!r}: expected no '?', no '::', and no part of the path that is empty, '.' "
                "or '..'; write the URL without them"
            )

    def _check_root(self) -> None:
        """Refuse a URL that the driver reads otherwise than it is shown: it names what is written."""
        shown, root = self._url.partition("://")[2].strip("/"), self._root.strip("/")
        has_host = self._protocols.isdisjoint(_HOSTLESS_PROTOCOLS)
        path = shown.partition("/")[2] if has_host else shown
        is_nowhere = not shown and "memory" not in self._protocols
        if is_nowhere or (path and not f"/{root}".endswith(f"/{path}")):
            raise StoreError(
                f"store {self._url!r}: the driver of this protocol reads another path from it, "
                f"{self._secret_url.redact(root)!r}; expected a bucket or host, if it has any, and a path "
                "that it takes as it is"
            )

    def _move(self, temporary: str, path: str) -> None:
        """Give an object its name. What drivers without a rename inherit would take both for patterns."""
        if type(self._fs).mv is not AbstractFileSystem.mv:
            self._fs.mv(temporary, path)
            return
        self._fs.cp_file(temporary, path)
        self._fs.rm_file(temporary)

    def _tag(self, key: str) -> str | None:
        """The driver's tag of an object's content, such as its ETag; None if it has none."""
        path = self._path(key)

        def look() -> str | None:
            # Other machines write too.
            self._fs.invalidate_cache()
            info = self._fs.info(path)
            tag = next((info[name] for name in _TAGS if info.get(name)), None)
            return None if tag is None else f"{info.get('size')}:{tag}"

        return self._run("look up", key, look)

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _write(self, key: str, path: str, data: bytes, *, is_new: bool) -> None:
        # Object stores have no folders; those file systems that do want them made.
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if self._is_atomic:
            self._fs.pipe_file(path, data, mode="create" if is_new else "overwrite")
            return
        temporary = f"{self._root}/{temporary_key(key)}"
        try:
            self._fs.pipe_file(temporary, data)
            if self._etag_now(temporary) != etag_of(data):
                raise StoreError(f"{self._url}/{key}: does not read back as it was written; check the server")
            if is_new and self._fs.exists(path):
                raise FileExistsError(path)
            self._move(temporary, path)
        except BaseException:
            # What cannot be removed now is a leftover that `ship gc` finds.
            with suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def _etag_now(self, path: str) -> str | None:
        try:
            return etag_of(self._fs.cat_file(path))
        except FileNotFoundError:
            return None

    def _find(self, prefix: str) -> Iterable[str]:
        """Paths of all files that start with ``prefix``, valid keys or not."""
        start = f"{self._root}/{prefix.rpartition('/')[0]}".rstrip("/")

        def find() -> Iterable[str]:
            # Other machines write too: a listing from a cache would miss what they published.
            self._fs.invalidate_cache()
            try:
                return tuple(self._fs.find(start))
            except FileNotFoundError:
                return ()

        root = self._root.strip("/")
        keys = (below(root, path.lstrip("/")) for path in self._run("list", prefix, find))
        return (key for key in keys if key and key.startswith(prefix))

    def _look_up(self, keys: Iterable[str]) -> Iterator[ListedObject]:
        for key in keys:
            path = f"{self._root}/{key}"

            def look(path: str = path, key: str = key) -> ListedObject:
                size, modified = self._fs.info(path)["size"], self._fs.modified(path)
                return ListedObject(key=key, num_bytes=size, modified_s=_seconds(modified))

            try:
                found = self._run("look up", key, look)
            except ObjectMissing:
                continue
            yield found

    def _run(self, doing: str, key: str, action: Callable[[], Result]) -> Result:
        with self._errors(doing, key):
            return self._patience.run(action, _is_transient)

    @contextmanager
    def _errors(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        # `from None`: the driver's own text may hold the password, and tracebacks are logged.
        except (FileNotFoundError, IsADirectoryError):
            raise ObjectMissing(f"{self._url}/{key}: no such object") from None
        except StoreError:
            raise
        except GaveUp as end:
            said = f"{type(end.error).__name__}: {end}"
            advice = "check the network and the server"
        # A boundary: each driver raises what its own client raises, and they have no class in common.
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            advice = "check the URL, its credentials, and that fsspec's driver for it is installed"
        else:
            return
        said = self._secret_url.redact(said)
        raise StoreError(f"cannot {doing} {self._url}/{key}: {said}; {advice}") from None


def _seconds(modified: datetime) -> float:
    return (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()


def _is_transient(error: BaseException) -> bool:
    """Drivers have no class of errors in common, but connections, time-outs and states of HTTP look alike."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return any(getattr(error, name, None) in TRANSIENT_STATUSES for name in _STATUS_NAMES)
