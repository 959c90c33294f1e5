"""Marks of garbage: what `ship gc` found unreferenced, and since when, in one small object of the store::

    garbage/marked.json

Only what an earlier run has marked is removed, and only if it was not written again since. A lost or damaged
list costs another wait and nothing else.
"""

import json
import logging
import uuid
from collections.abc import Iterable, Mapping

from pydantic import Field

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.documents.document import Document, NewerSchemaError
from orchestrator.store.garbage.finding import Garbage
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["Marks", "store_time_s"]

SCHEMA_VERSION = 1
MAX_BYTES = 64 << 20
_KEY, _CLOCK = "garbage/marked.json", "garbage/clock"
_NUM_TRIES = 5
_logger = logging.getLogger(__name__)


class _Mark(Document):
    modified_s: float = Field(allow_inf_nan=False)
    marked_s: float = Field(allow_inf_nan=False)


class _Marked(Document):
    schema_: int = Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    marked: dict[str, _Mark]


class Marks:
    """The marks in a store, as they were read.

    Args:
        objects: Object store.

    Raises:
        StoreError: They cannot be read.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._etag: str | None = None
        self._marked: Mapping[str, _Mark] = {}
        try:
            stored = objects.get(_KEY, max_bytes=MAX_BYTES)
        except ObjectMissing:
            return
        self._etag = stored.etag
        try:
            self._marked = _Marked.read(stored.data, f"{objects.url}/{_KEY}", "it is written anew").marked
        except NewerSchemaError:
            raise
        except StoreError as error:
            _logger.warning("%s", error)

    def since_s(self, garbage: Garbage) -> float | None:
        """When it was marked, by the store's clock; None if it was not, or was written again since."""
        mark = self._marked.get(_name(garbage))
        return None if mark is None or mark.modified_s != garbage.modified_s else mark.marked_s

    def put(self, garbage: Iterable[Garbage], now_s: float) -> None:
        """Mark this garbage and no other; what is marked already keeps its time.

        Raises:
            ObjectConflict: Another run marks at the same time.
        """
        marked = {
            _name(one): {"modified_s": one.modified_s, "marked_s": now_s if since_s is None else since_s}
            for one in garbage
            for since_s in (self.since_s(one),)
        }
        content = json.dumps({"schema": SCHEMA_VERSION, "marked": marked}, sort_keys=True).encode()
        if len(content) > MAX_BYTES:
            raise StoreError(
                f"{self._objects.url}/{_KEY}: {len(marked)} marks take more than {MAX_BYTES} bytes"
            )
        if self._etag is not None:
            self._objects.put(_KEY, content, if_match=self._etag)
        elif marked and not self._objects.put_new(_KEY, content):
            raise ObjectConflict(f"{self._objects.url}/{_KEY}: another `ship gc` runs; run it again later")


def store_time_s(objects: ObjectStore) -> float:
    """The time by the clock that stamps a store's objects, not by this host's: that of one just written.

    Raises:
        StoreError: The store cannot be written.
    """
    # Another run may remove it in between.
    for _ in range(_NUM_TRIES):
        objects.put(_CLOCK, uuid.uuid4().hex.encode())
        times_s = [found.modified_s for found in objects.scan(_CLOCK) if found.key == _CLOCK]
        objects.delete(_CLOCK)
        if times_s:
            return times_s[0]
    raise StoreError(
        f"{objects.url}/{_CLOCK}: was written {_NUM_TRIES} times and is not listed; check the server"
    )


def _name(garbage: Garbage) -> str:
    return f"{garbage.kind}/{garbage.name}"
