"""Copies of a store's objects in a place of backups: each content once, as a blob named by its digest.

A blob whose size is not that of its content is damaged, and is written again. One that has the size is taken
for sound unless it is read: those that are read for what they name are looked at, and with ``verify`` all.

What is written once under a name that says what is in it is not read again in the store: the last backup's
blob is taken. That may hold what was damaged in the store then and is whole by now, so who finds damage in
such a blob has it copied again.
"""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from orchestrator.backup.layout import BLOBS, CLOCKS_DIFFER_S, Blob, Manifest, blob_key, digest_of, read_blob
from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.store.prompt_store import NUM_READERS

__all__ = ["Copier"]

# Written once under a name that says what is in it, so that an earlier copy of it is this one, or is found
# to be damaged. A marker under published/ is none of these: its name is a task's key, and it is written anew.
_NAMED_BY_CONTENT = ("artifacts/", "rules/")
# The name is a fingerprint that is computed of a loaded backbone, so that damage of it is not found here.
_BACKBONES = "backbones/"


class Copier:
    """Copies objects to blobs, those that are not there yet, or are damaged there.

    Attributes:
        num_copied: Blobs that were written, and were not there.
        num_copied_bytes: Their size.
        rewritten: Keys of objects whose blobs were damaged, and were written again.
        damaged: What is damaged in the place, and cannot be written again.

    Args:
        objects: The store.
        place: Store of backups.
        last: The last backup; None where there is none.
        verify: Whether the blobs that are there are read, and compared with their digests.
    """

    def __init__(
        self, objects: ObjectStore, place: ObjectStore, last: Manifest | None, *, verify: bool = False
    ) -> None:
        self._objects, self._place, self._verify = objects, place, verify
        self._known = {} if last is None else _find_known(objects, last)
        # Keys whose known blobs were taken.
        self._reused: set[str] = set()
        self._size_of = {one.key.removeprefix(BLOBS): one.num_bytes for one in place.scan(BLOBS)}
        # Digests of blobs that were written or read here.
        self._sound: set[str] = set()
        self._lock = threading.Lock()
        self.num_copied = self.num_copied_bytes = 0
        self.rewritten: set[str] = set()
        self.damaged: list[str] = []

    def copy(self, keys: Iterable[str]) -> dict[str, Blob]:
        """Blob by key; without what is gone by now, such as garbage."""
        wanted = sorted(set(keys))
        with ThreadPoolExecutor(NUM_READERS) as readers:
            blobs = list(readers.map(self._copy, wanted))
        return {key: blob for key, blob in zip(wanted, blobs, strict=True) if blob is not None}

    def copy_again(self, keys: Iterable[str]) -> dict[str, Blob]:
        """Blob by key, read in the store, of those among the keys whose blobs the last backup gave."""
        again = self._reused.intersection(keys)
        self._reused -= again
        for key in again:
            del self._known[key]
        return self.copy(again)

    def _copy(self, key: str) -> Blob | None:
        known = self._known.get(key)
        if known is not None and self._holds(known):
            with self._lock:
                self._reused.add(key)
            return known
        try:
            return self.write(key, self._objects.get(key).data)
        except ObjectMissing:
            return None

    def write(self, key: str, content: bytes) -> Blob:
        """Write the content of an object, unless it is there."""
        blob = Blob.of(content)
        if not self._holds(blob):
            self._put(key, blob, content)
        return blob

    def read(self, key: str, blob: Blob) -> bytes | None:
        """The content of a blob, which is written again if it is damaged; None where it stays so."""
        try:
            return read_blob(self._place, blob)
        except StoreError as error:
            problem = f"{key}: {error}"
        try:
            content = self._objects.get(key).data
            if digest_of(content) != blob.sha256:
                raise StoreError(f"the store has another content as {key} now")
            self._place.put(blob_key(blob.sha256), content)
        except StoreError as error:
            with self._lock:
                self.damaged.append(f"{problem}; not so now: {error}")
            return None
        with self._lock:
            self.rewritten.add(key)
        return content

    def _holds(self, blob: Blob) -> bool:
        with self._lock:
            if blob.sha256 in self._sound:
                return True
        if self._size_of.get(blob.sha256) != blob.num_bytes:
            return False
        if self._verify:
            try:
                read_blob(self._place, blob)
            except StoreError:
                # If the place does not answer at all, writing it fails.
                return False
            with self._lock:
                self._sound.add(blob.sha256)
        return True

    def _put(self, key: str, blob: Blob, content: bytes) -> None:
        with self._lock:
            if blob.sha256 in self._sound:
                return
            self._sound.add(blob.sha256)
            if blob.sha256 in self._size_of:
                self.rewritten.add(key)
            else:
                self.num_copied += 1
                self.num_copied_bytes += blob.num_bytes
        # If this fails, no backup is taken.
        self._place.put(blob_key(blob.sha256), content)


def _find_known(objects: ObjectStore, last: Manifest) -> dict[str, Blob]:
    """Blobs of the last backup that are taken for what the store has."""
    known = {key: blob for key, blob in last.objects.items() if key.startswith(_NAMED_BY_CONTENT)}
    for one in objects.scan(_BACKBONES):
        blob = last.objects.get(one.key)
        is_older = one.modified_s < last.made_s - CLOCKS_DIFFER_S
        if blob is not None and blob.num_bytes == one.num_bytes and is_older:
            known[one.key] = blob
    return known
