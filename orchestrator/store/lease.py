"""A lease on an object of the store: one holder at a time among the processes of any machines.

A process trusts its own clock alone: a lease that was not renewed for a minute in which *this* process has
watched it has lost its holder. What it guards must not depend on it: a paused holder may go on for a moment.
"""

import json
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.documents.document import Document, NewerSchemaError
from orchestrator.store.objects.open import ObjectStore

__all__ = ["LEASE_S", "StoreLease"]

LEASE_S = 60.0
_RENEW_S = LEASE_S / 6
_MAX_BYTES = 4096


class StoreLease:
    """A lease, as one process sees it; of one thread.

    Args:
        objects: Object store.
        key: Key of the lease.
        monotonic: Monotonic clock in seconds.
    """

    def __init__(
        self, objects: ObjectStore, key: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._objects, self._key, self._monotonic = objects, key, monotonic
        self._holder = uuid.uuid4().hex
        self._beat = 0
        self._etag: str | None = None
        self._renewed_s = 0.0
        # The lease of another holder: its etag, and since when it has been the same.
        self._watched: tuple[str, float] | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process took it and has not released it; another one may have taken it over since."""
        return self._etag is not None

    def acquire(self) -> bool:
        """Take or renew the lease; False if another process holds it.

        Raises:
            StoreError: The store failed.
        """
        if self._etag is not None and self._monotonic() - self._renewed_s < _RENEW_S:
            return True
        self._beat += 1
        try:
            etag = self._etag if self._etag is not None else self._find_free()
            self._write(etag, holder=self._holder)
        except ObjectConflict:
            self._etag = None
            return False
        return self._etag is not None

    def release(self) -> None:
        """Let another process have the lease; one that was lost, or cannot be written, stays as it is."""
        etag, self._etag = self._etag, None
        if etag is None:
            return
        try:
            self._objects.put(self._key, _content(None, self._beat), if_match=etag)
        except StoreError:
            # It runs out.
            return

    def _find_free(self) -> str | None:
        """Etag of a lease that may be taken over; None if there is none yet.

        Raises:
            ObjectConflict: Another process holds it.
        """
        try:
            stored = self._objects.get(self._key, max_bytes=_MAX_BYTES)
        except ObjectMissing:
            return None
        if _holder_of(stored.data) in (None, self._holder):
            return stored.etag
        now_s = self._monotonic()
        if self._watched is None or self._watched[0] != stored.etag:
            self._watched = stored.etag, now_s
        if now_s - self._watched[1] < LEASE_S:
            raise ObjectConflict(f"{self._objects.url}/{self._key}: another process holds it")
        return stored.etag

    def _write(self, etag: str | None, holder: str) -> None:
        content = _content(holder, self._beat)
        if etag is not None:
            self._etag = self._objects.put(self._key, content, if_match=etag)
        elif self._objects.put_new(self._key, content):
            self._etag = self._objects.get(self._key, max_bytes=_MAX_BYTES).etag
        self._renewed_s, self._watched = self._monotonic(), None


class _Lease(Document):
    schema_: Literal[1] = Field(alias="schema")
    holder: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None
    beat: int


def _content(holder: str | None, beat: int) -> bytes:
    return (json.dumps({"schema": 1, "holder": holder, "beat": beat}, sort_keys=True) + "\n").encode()


def _holder_of(content: bytes) -> str | None:
    """The holder; none of a lease that is damaged, which is written anew."""
    try:
        return _Lease.read(content, "lease", "").holder
    except NewerSchemaError:
        # It is held by a process that is not known here, until it is not renewed any more.
        return "newer"
    except StoreError:
        return None
