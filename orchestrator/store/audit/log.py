"""The audit log of a store: one chain of immutable entries, written by any number of hosts::

    audit/<number>.json    an entry; written once, by a write that fails if there is one of that number
    audit/head.json        the last entry as far as its writer knew: where to look for the end

A record gets the next free number, and goes in once: its writer looks at every entry since a place that was
known before the change, and finds its own there if an earlier try has written it. The head saves a listing
and may be late; lost, it is found anew.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.documents.audit import (
    BEGIN,
    MAX_ENTRY_BYTES,
    NOWHERE,
    AuditEntry,
    AuditRecord,
    Author,
    DamagedEntry,
    Pin,
    Trail,
)
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["FOLDER", "HEAD", "AuditLog", "entry_key"]

_logger = logging.getLogger(__name__)
FOLDER, HEAD = "audit/", "audit/head.json"
NUM_READERS = 16
_BATCH = 128
_MAX_TRIES = 5


class HasObjects(Protocol):
    """A store, such as a ``PromptStore``."""

    @property
    def objects(self) -> ObjectStore:
        """Its objects."""
        ...


class HasTrail(Protocol):
    """A document with a trail; a frozen dataclass."""

    @property
    def trail(self) -> Trail:
        """Its changes in the log."""
        ...


_Document = TypeVar("_Document", bound=HasTrail)


class AuditLog:
    """The audit log of one store. Safe for many threads and processes.

    Methods raise ``StoreError`` when the store fails.

    Args:
        store: The store.
        clock: Current time, seconds since the epoch.
    """

    def __init__(self, store: HasObjects, clock: Callable[[], float] = time.time) -> None:
        self._objects, self._clock = store.objects, clock

    def append(
        self,
        action: str,
        task: str | None,
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        reason: str,
        author: Author,
    ) -> Pin:
        """Log what was done; a command that is killed before this has logged nothing.

        A document that has a ``trail`` loses no change: see ``record`` and ``settle``.

        Args:
            action: What was done, of ``a-z`` and ``-``.
            task: Name of the task, if it concerns one.
            before: What was changed, as it was: JSON values by name.
            after: The same, as it is now.
            reason: Reason that was given.
            author: Its author.

        Returns:
            The entry.
        """
        return self.add(self.record(action, task, before, after, author, reason=reason))

    def record(
        self,
        action: str,
        task: str | None,
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        author: Author,
        *,
        reason: str | None = None,
        record_id: str | None = None,
    ) -> AuditRecord:
        """A record for the trail of a document that is about to be written.

        Args:
            action: As for ``append``.
            task: As for ``append``.
            before: As for ``append``.
            after: As for ``append``.
            author: As for ``append``.
            reason: Reason; by default the author's.
            record_id: 32 hex digits; by default new ones.

        Raises:
            StoreError: It is larger than an entry may be, or could not be read again.
        """
        record = AuditRecord.make(
            action,
            task,
            before,
            after,
            author,
            since=self._last_known(),
            time_s=self._clock(),
            reason=reason,
            record_id=record_id,
        )
        content = AuditEntry(sequence=10**12, previous=NOWHERE.digest, record=record).to_json()
        AuditEntry.from_json(content, f"audit entry ({record.action}), which is not written")
        return record

    def settle(self, document: _Document) -> _Document:
        """Log the changes of a document that wait for it; returns the document to be written then.

        It is the same object if none waited.
        """
        trail = document.trail
        if not trail.waiting:
            return document
        for record in trail.waiting:
            last = self.add(record)
        return replace(document, trail=Trail(last=last))  # type: ignore[type-var]

    def follow(self, document: _Document, etag: str, write: Callable[[_Document, str | None], str]) -> bool:
        """Log the changes of a document that was written, and note in it that they are.

        What fails here is made up for by the next change: the document has changed, and says so itself.

        Args:
            document: The document.
            etag: Its etag.
            write: Replaces it, given the etag of the one before.

        Returns:
            Whether its changes are logged.
        """
        try:
            if (settled := self.settle(document)) is not document:
                write(settled, etag)
        except ObjectConflict:
            # Another writer has built on it, and logs what it found there.
            return True
        except StoreError as error:
            _logger.warning("a change is made, and waits for the audit log: %s", error)
            return False
        return True

    def add(self, record: AuditRecord) -> Pin:
        """Write a record as the next entry, unless it is in the log already; returns its entry."""
        at = record.since
        while True:
            number = at.sequence + 1
            content = self.read_bytes(number)
            if content is None:
                entry = self._begin() if number == 1 else record
                mine = AuditEntry(sequence=number, previous=at.digest, record=entry).to_json()
                if not self._objects.put_new(entry_key(number), mine):
                    continue
                content = mine
            at = Pin.of(number, content)
            if _id_of(content) == record.record_id:
                self._note_head(at)
                return at

    def head(self) -> Pin:
        """The last entry; ``NOWHERE`` of an empty log."""
        at = self._last_known()
        while (content := self.read_bytes(at.sequence + 1)) is not None:
            at = Pin.of(at.sequence + 1, content)
        return at

    def noted_head(self) -> Pin | None:
        """The last entry as it was noted last; None if it is not noted, or not readably.

        It is behind the log where a writer was ended between the two, and never before it.
        """
        found = self._read_head()
        return None if found is None else found[0]

    def read_bytes(self, sequence: int) -> bytes | None:
        """The bytes of an entry; None if there is none."""
        try:
            return self._objects.get(entry_key(sequence), max_bytes=MAX_ENTRY_BYTES).data
        except ObjectMissing:
            return None

    def newest(self) -> Iterator[AuditEntry]:
        """The entries that can be read, the last first; see ``look`` for the others."""
        return (found for _, found in self.look() if isinstance(found, AuditEntry))

    def look(self, before: int | None = None) -> Iterator[tuple[int, AuditEntry | DamagedEntry | None]]:
        """Numbers of entries, the last first, each with what is there; None where nothing is.

        A gap of which a listing knows no entry either is passed over, however wide it is.

        Args:
            before: The number of an entry: those before it; None for all.
        """
        end = self.head().sequence
        if before is not None:
            end = min(end, before - 1)
        with ThreadPoolExecutor(NUM_READERS) as readers:
            while end > 0:
                numbers, is_gap = range(end, max(0, end - _BATCH), -1), True
                for number, found in zip(numbers, readers.map(self._read, numbers), strict=True):
                    is_gap = is_gap and found is None
                    yield number, found
                end = numbers[-1] - 1
                if is_gap:
                    end = max((number for number in self.numbers() if number <= end), default=0)

    def numbers(self) -> list[int]:
        """Numbers of all entries, by a listing."""
        found = (key.removeprefix(FOLDER).removesuffix(".json") for key in self._objects.list(FOLDER))
        return [int(name) for name in found if name.isdecimal() and name == f"{int(name):012d}"]

    def likely_numbers(self) -> Iterator[int]:
        """Numbers of the entries that a listing has or may have missed, in order.

        One beside writers may miss a few between others. A wider gap is one: an object of a far number, which
        no writer of this log has made, is no reason to read up to it.
        """
        last = 0
        for number in sorted(self.numbers()):
            yield from range(last + 1 if number - last <= _BATCH else number, number + 1)
            last = number

    def _read(self, sequence: int) -> AuditEntry | DamagedEntry | None:
        try:
            content = self.read_bytes(sequence)
            return None if content is None else AuditEntry.from_json(content, entry_key(sequence))
        except StoreError as error:
            return DamagedEntry(sequence=sequence, problem=str(error))

    def _begin(self) -> AuditRecord:
        """The first entry, which tells this log from any other."""
        author = Author.of_process()
        after = {"log": uuid.uuid4().hex, "store": self._objects.url}
        return AuditRecord.make(BEGIN, None, {}, after, author, since=NOWHERE, time_s=self._clock())

    def _last_known(self) -> Pin:
        """The end of the log, or a place a few entries before it."""
        if (found := self._read_head()) is not None:
            return found[0]
        last = max(self.numbers(), default=0)
        content = self.read_bytes(last) if last else None
        return NOWHERE if content is None else Pin.of(last, content)

    def _read_head(self) -> tuple[Pin, str] | None:
        from orchestrator.store.documents.audit_document import read_head

        try:
            stored = self._objects.get(HEAD, max_bytes=MAX_ENTRY_BYTES)
            return read_head(stored.data, f"{self._objects.url}/{HEAD}"), stored.etag
        except ObjectMissing:
            return None
        except StoreError as error:
            _logger.warning("the end of the audit log is looked for: %s", error)
            return None

    def _note_head(self, at: Pin) -> None:
        """Note the last entry, unless a later one is noted. The entry is written: nothing depends on it."""
        content = (json.dumps({"schema": 1, **vars(at)}, sort_keys=True) + "\n").encode()
        try:
            for _ in range(_MAX_TRIES):
                found = self._read_head()
                if found is None and self._objects.put_new(HEAD, content):
                    return
                if found is None or found[0].sequence >= at.sequence:
                    return
                try:
                    self._objects.put(HEAD, content, if_match=found[1])
                    return
                except ObjectConflict:
                    continue
        except StoreError as error:
            _logger.warning("the end of the audit log is noted by the next change: %s", error)


def entry_key(sequence: int) -> str:
    """Key of an entry."""
    return f"{FOLDER}{sequence:012d}.json"


def _id_of(content: bytes) -> str | None:
    """Id of the record in an entry; None if that is damaged."""
    try:
        values = json.loads(content)
        return str(values["record"]["record_id"])
    except (ValueError, KeyError, TypeError):
        return None
