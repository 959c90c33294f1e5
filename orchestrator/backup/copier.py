"""Copies of a store's objects in a place of backups: each content once, as a blob named by its digest."""

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from orchestrator.backup.layout import BLOBS, Blob, blob_key
from orchestrator.errors import ObjectMissing
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.store.prompt_store import NUM_READERS

__all__ = ["Copier"]

# Written once under a name that says what is in it, so that an earlier copy of it is this one.
_IMMUTABLE = ("artifacts/", "rules/", "published/", "backbones/")


class Copier:
    """Copies objects to blobs, those that are not there yet.

    Attributes:
        num_copied: Blobs that were written.
        num_copied_bytes: Their size.

    Args:
        objects: The store.
        place: Store of backups.
        last: Blobs by key of the last backup.
    """

    def __init__(self, objects: ObjectStore, place: ObjectStore, last: Mapping[str, Blob]) -> None:
        self._objects, self._place, self._last = objects, place, last
        self._held = {key.removeprefix(BLOBS) for key in place.list(BLOBS)}
        self._lock = threading.Lock()
        self.num_copied = self.num_copied_bytes = 0

    def copy(self, keys: Iterable[str]) -> dict[str, Blob]:
        """Blob by key; without what is gone by now, such as garbage."""
        wanted = sorted(set(keys))
        with ThreadPoolExecutor(NUM_READERS) as readers:
            blobs = list(readers.map(self._copy, wanted))
        return {key: blob for key, blob in zip(wanted, blobs, strict=True) if blob is not None}

    def _copy(self, key: str) -> Blob | None:
        known = self._last.get(key)
        if known is not None and key.startswith(_IMMUTABLE) and known.sha256 in self._held:
            return known
        try:
            return self.write(self._objects.get(key).data)
        except ObjectMissing:
            return None

    def write(self, content: bytes) -> Blob:
        """Write a content, unless it is there."""
        blob = Blob.of(content)
        with self._lock:
            is_new = blob.sha256 not in self._held
            self._held.add(blob.sha256)
            self.num_copied += is_new
            self.num_copied_bytes += is_new * blob.num_bytes
        if is_new:
            # If this fails, no backup is taken.
            self._place.put(blob_key(blob.sha256), content)
        return blob
