"""The objects of a backup, read as a store."""

from collections.abc import Iterator
from typing import NoReturn

from orchestrator.backup.layout import Manifest, blob_key
from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.store.objects.protocol import ListedObject, ObjectStore, StoredObject, too_large

__all__ = ["BackupObjects"]


class BackupObjects:
    """An ``ObjectStore`` of what a backup holds, which cannot be written.

    Args:
        place: Store of backups.
        manifest: The backup.
    """

    def __init__(self, place: ObjectStore, manifest: Manifest) -> None:
        self._place, self._manifest = place, manifest

    @property
    def url(self) -> str:
        """URL of the place, and the id of the backup."""
        return f"{self._place.url}/backups/{self._manifest.id}"

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object."""
        blob = self._manifest.objects.get(key)
        if blob is None:
            raise ObjectMissing(f"{self.url}/{key}: no such object in the backup")
        if max_bytes is not None and blob.num_bytes > max_bytes:
            raise too_large(self.url, key, blob.num_bytes, max_bytes)
        return StoredObject(data=self._place.get(blob_key(blob.sha256)).data, etag=blob.sha256)

    def get_unless(self, key: str, etag: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Read an object, unless it has that etag."""
        blob = self._manifest.objects.get(key)
        return None if blob is not None and blob.sha256 == etag else self.get(key, max_bytes=max_bytes)

    def exists(self, key: str) -> bool:
        """Whether the backup has it."""
        return key in self._manifest.objects

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with ``prefix``, in order."""
        return iter(sorted(key for key in self._manifest.objects if key.startswith(prefix)))

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Objects whose keys start with ``prefix``, in order, all of the backup's time."""
        for key in self.list(prefix):
            num_bytes = self._manifest.objects[key].num_bytes
            yield ListedObject(key=key, num_bytes=num_bytes, modified_s=self._manifest.made_s)

    def leftovers(self) -> Iterator[ListedObject]:
        """None."""
        return iter(())

    def put_new(self, key: str, data: bytes) -> bool:
        """Refuse."""
        self._refuse(key)

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Refuse."""
        self._refuse(key)

    def delete(self, key: str) -> None:
        """Refuse."""
        self._refuse(key)

    def drop_leftover(self, key: str) -> None:
        """Refuse."""
        self._refuse(key)

    def _refuse(self, key: str) -> NoReturn:
        raise StoreError(f"{self.url}/{key}: a backup is not changed; restore it, and change the store")
