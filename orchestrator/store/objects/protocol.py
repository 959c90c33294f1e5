"""The interface of an object store, and the keys that it takes. Knows no backend."""

import errno
import hashlib
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import ObjectConflict, StoreError

__all__ = [
    "ListedObject",
    "ObjectStore",
    "StoredObject",
    "advice_for",
    "check_key",
    "check_prefix",
    "check_temporary",
    "conflict",
    "etag_of",
    "is_full",
    "is_key",
    "is_temporary",
    "temporary_key",
    "too_large",
]

# A part never starts with a dot, so no key climbs with `..` or meets a backend's own temporary files.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
MAX_KEY_LENGTH = 900


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object as it was read.

    Attributes:
        data: Content.
        etag: Opaque; differs when the content differs.
    """

    data: bytes
    etag: str


@dataclass(frozen=True, kw_only=True)
class ListedObject:
    """An object as a listing shows it.

    Attributes:
        key: Key.
        num_bytes: Size.
        modified_s: Time of the last write, seconds since the epoch by the backend's clock.
    """

    key: str
    num_bytes: int
    modified_s: float


class ObjectStore(Protocol):
    """A flat map of keys (``a/b/c``) to bytes. Every write is atomic: no reader ever sees half an object.

    All methods raise ``StoreError`` when the backend fails, or a key is not one.
    """

    @property
    def url(self) -> str:
        """URL of the store, without credentials and without a slash at the end."""
        ...

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object.

        Raises:
            ObjectMissing: There is none.
            StoreError: It is larger than ``max_bytes``; its content was not read.
        """
        ...

    def get_unless(self, key: str, etag: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Read an object; None, without its content, if ``etag`` is still its.

        Raises:
            ObjectMissing: There is none.
            StoreError: It is larger than ``max_bytes``; its content was not read.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether the object exists."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist yet; False, and nothing changed, if it does."""
        ...

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Write or overwrite an object; returns its new etag.

        Raises:
            ObjectConflict: ``if_match`` is given, and is not the etag of what is there now.
        """
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with ``prefix``, in order."""
        ...

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Objects whose keys start with ``prefix``, in order, with size and time."""
        ...

    def leftovers(self) -> Iterator[ListedObject]:
        """Temporary objects of running and of killed writers. Their keys are not valid keys."""
        ...

    def drop_leftover(self, key: str) -> None:
        """Remove a temporary object, if it is there."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...


def is_key(key: str) -> bool:
    """Whether ``key`` is parts of ``A-Z a-z 0-9 . _ -`` joined by ``/``, none of them starting with a dot."""
    return len(key) <= MAX_KEY_LENGTH and all(_PART.fullmatch(part) for part in key.split("/"))


def check_key(key: str) -> str:
    """Return ``key`` unchanged.

    Raises:
        StoreError: It is not a key.
    """
    if not is_key(key):
        raise StoreError(
            f"store key {key[:120]!r}: expected parts of letters, digits, '.', '_' and '-' joined by '/', "
            f"none starting with '.' or '-', at most {MAX_KEY_LENGTH} characters"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` unchanged: a key, a key with a slash at its end, or nothing.

    Raises:
        StoreError: It is none of these.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def temporary_key(key: str) -> str:
    """A name of its own beside ``key``, which no listing of keys shows."""
    folder, slash, _ = key.rpartition("/")
    return f"{folder}{slash}.{uuid.uuid4().hex}.tmp"


def is_temporary(key: str) -> bool:
    """Whether ``temporary_key`` made it."""
    folder, _, name = key.rpartition("/")
    return _TEMPORARY.fullmatch(name) is not None and (not folder or is_key(folder))


def check_temporary(url: str, key: str) -> str:
    """Return ``key`` unchanged.

    Raises:
        StoreError: ``temporary_key`` did not make it.
    """
    if not is_temporary(key):
        raise StoreError(f"{url}: {key[:120]!r} is not a temporary object of ours; it stays")
    return key


def etag_of(data: bytes) -> str:
    """Etag of a backend that has none of its own: the sha256 of the content."""
    return hashlib.sha256(data).hexdigest()


def conflict(url: str, key: str) -> ObjectConflict:
    """The error of a lost compare-and-swap."""
    return ObjectConflict(
        f"{url}/{key}: another writer changed it meanwhile; read it again and repeat the change"
    )


def too_large(url: str, key: str, num_bytes: int, max_bytes: int) -> StoreError:
    """The error for an object that is larger than its reader takes."""
    return StoreError(f"{url}/{key}: {num_bytes} bytes, expected at most {max_bytes}; it was not read")


def is_full(error: OSError) -> bool:
    """Whether a file system has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def advice_for(error: OSError) -> str:
    """Advice for an error of the file system."""
    if is_full(error):
        return "the disk is full: free some space and run the same command again"
    if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
        return "a store needs a file system with hard links: use a local disk, NFS or a bucket"
    if error.errno in (errno.EACCES, errno.EROFS):
        return "check the owner and the permissions of the folder"
    return "check that the folder is there and its disk is sound"
