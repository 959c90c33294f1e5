"""Publications: a marker is a line of JSON that names a task key and the digest of its artifact."""

import json
import re
import uuid
from dataclasses import dataclass

from orchestrator.errors import StoreError
from orchestrator.names import check_task_name
from orchestrator.store.documents.document import Digest, Document, TaskName
from orchestrator.store.documents.writing import to_bytes

__all__ = ["Marker", "Publication", "check_task_key", "make_marker"]

_TASK_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Marker(Document):
    """The content of a marker."""

    task: TaskName
    task_key: str
    digest: Digest
    time_s: float
    writer: str


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A published result of tuning a task; it never changes.

    Attributes:
        task: Name of the task.
        task_key: Digest of the data and the settings that it was tuned from.
        digest: Digest of the artifact that counts for this key: the first one published.
        uri: URI of the artifact's folder in the store.
        time_s: Time of publication, seconds since the epoch.
        created: True for the writer that published it; False for later writers and for readers.
    """

    task: str
    task_key: str
    digest: str
    uri: str
    time_s: float
    created: bool = False


def check_task_key(task_key: str) -> str:
    """Return ``task_key`` unchanged.

    Raises:
        StoreError: It is not a task key.
    """
    if not _TASK_KEY.fullmatch(task_key):
        raise StoreError(f"task key {task_key[:80]!r}: expected up to 128 letters and digits")
    return task_key


def make_marker(task: str, task_key: str, digest: str, time_s: float) -> bytes:
    """Content of a marker.

    It names its writer, so that a writer which repeats a request whose reply was lost recognizes its own
    marker. It does not name the store: a store that was moved or mirrored still reads right.
    """
    marker = Marker(
        task=check_task_name(task),
        task_key=check_task_key(task_key),
        digest=digest,
        time_s=time_s,
        writer=uuid.uuid4().hex,
    )
    return to_bytes(json.dumps(dict(marker), sort_keys=True) + "\n")
