"""Snapshots of tunings under way, ``snapshots/<task>/<task_key>``: replaced by their tuner, then dropped."""

from contextlib import suppress

from orchestrator.errors import ObjectConflict, ObjectMissing
from orchestrator.names import check_task_name
from orchestrator.store.documents.publication import check_task_key
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["SnapshotStore"]

MAX_SNAPSHOT_BYTES = 1 << 30


class SnapshotStore:
    """The snapshots of one store.

    Args:
        objects: Object store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        # Of each snapshot that was read or written here, by key; None if there was none.
        self._etags: dict[str, str | None] = {}

    def save(self, task: str, task_key: str, data: bytes) -> None:
        """Keep the state of a tuning under way, in place of the one that was read or saved here before.

        Raises:
            ObjectConflict: Another worker saved or dropped it meanwhile: nothing was written. The worker
                that still holds the task may save again, and then replaces the other snapshot.
        """
        key = _snapshot_key(task, task_key)
        etag = self._etags.get(key)
        with suppress(ObjectConflict):
            if etag is not None:
                self._etags[key] = self._objects.put(key, data, if_match=etag)
                return
            self._objects.put_new(key, data)
        if self._look(key) != data:
            raise ObjectConflict(
                f"{self._objects.url}/{key}: another worker saved or dropped this snapshot meanwhile; "
                "it stays"
            )

    def load(self, task: str, task_key: str) -> bytes | None:
        """The last snapshot of a tuning, if there is one."""
        return self._look(_snapshot_key(task, task_key))

    def drop(self, task: str, task_key: str) -> None:
        """Forget the snapshot of a tuning, if there is one."""
        key = _snapshot_key(task, task_key)
        self._objects.delete(key)
        self._etags.pop(key, None)

    def _look(self, key: str) -> bytes | None:
        try:
            stored = self._objects.get(key, max_bytes=MAX_SNAPSHOT_BYTES)
        except ObjectMissing:
            self._etags[key] = None
            return None
        self._etags[key] = stored.etag
        return stored.data


def _snapshot_key(task: str, task_key: str) -> str:
    return f"snapshots/{check_task_name(task)}/{check_task_key(task_key)}"
