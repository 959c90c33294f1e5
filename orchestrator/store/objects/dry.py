"""A store whose writes stay in memory: what a command would do to it, seen without doing it."""

import threading
from collections.abc import Iterator

from orchestrator.errors import ObjectMissing
from orchestrator.store.objects.protocol import (
    ListedObject,
    ObjectStore,
    StoredObject,
    conflict,
    etag_of,
    too_large,
)

__all__ = ["DryObjects"]


class DryObjects:
    """An ``ObjectStore`` on top of another one, which is read and never written; threads may share it.

    Attributes:
        written: Content by key of what was written; None of what was deleted.

    Args:
        objects: The store below.
        now_s: Time of what is written, seconds since the epoch.
    """

    def __init__(self, objects: ObjectStore, now_s: float = 0.0) -> None:
        self._objects, self._now_s = objects, now_s
        self.written: dict[str, bytes | None] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """URL of the store below."""
        return self._objects.url

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object."""
        if key not in self.written:
            return self._objects.get(key, max_bytes=max_bytes)
        data = self.written[key]
        if data is None:
            raise ObjectMissing(f"{self.url}/{key}: no such object")
        if max_bytes is not None and len(data) > max_bytes:
            raise too_large(self.url, key, len(data), max_bytes)
        return StoredObject(data=data, etag=etag_of(data))

    def get_unless(self, key: str, etag: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Read an object, unless it has that etag."""
        if key not in self.written:
            return self._objects.get_unless(key, etag, max_bytes=max_bytes)
        found = self.get(key, max_bytes=max_bytes)
        return None if found.etag == etag else found

    def exists(self, key: str) -> bool:
        """Whether the object exists."""
        return self.written[key] is not None if key in self.written else self._objects.exists(key)

    def put_new(self, key: str, data: bytes) -> bool:
        """Keep an object that must not exist yet."""
        with self._lock:
            if self.exists(key):
                return False
            self.written[key] = data
            return True

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Keep an object in place of the one that is there."""
        with self._lock:
            if if_match is not None and (not self.exists(key) or self.get(key).etag != if_match):
                raise conflict(self.url, key)
            self.written[key] = data
            return etag_of(data)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with ``prefix``, in order."""
        return (found.key for found in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Objects whose keys start with ``prefix``, in order."""
        below = [found for found in self._objects.scan(prefix) if found.key not in self.written]
        own = [
            ListedObject(key=key, num_bytes=len(data), modified_s=self._now_s)
            for key, data in self.written.items()
            if data is not None and key.startswith(prefix)
        ]
        return iter(sorted([*below, *own], key=lambda found: found.key))

    def leftovers(self) -> Iterator[ListedObject]:
        """Temporary objects of the store below."""
        return self._objects.leftovers()

    def drop_leftover(self, key: str) -> None:
        """Leave it: it is no object."""

    def delete(self, key: str) -> None:
        """Take an object for deleted."""
        self.written[key] = None
