"""Verification of a store's audit log: every entry, every link, and every document that pins an entry.

What it cannot find: entries at the end that were removed together with the noted head, and that no document
pins; and a log that was written anew together with all documents that pin it. The pin of the last entry, kept
outside of the store, finds both.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import StoreError
from orchestrator.store.approvals import KEY, Approvals
from orchestrator.store.audit.log import FOLDER, HEAD, NUM_READERS, AuditLog, entry_key
from orchestrator.store.documents.audit import BEGIN, NOWHERE, AuditEntry, AuditRecord, Pin, Trail
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Break", "Verified", "verify"]

BreakKind = Literal[
    "missing", "truncated", "damaged", "changed", "misplaced", "repeated", "unlogged", "foreign", "unreadable"
]


@dataclass(frozen=True, kw_only=True)
class Break:
    """A place where the log is not as it was written.

    Attributes:
        place: Key of the entry, or of the document that does not fit the log.
        kind: ``missing`` (entries between others), ``truncated`` (entries at the end), ``damaged`` (no
            entry), ``changed`` (another content than a later entry or a document knows), ``misplaced``
            (another number than its own), ``repeated`` (a record that is there already), ``unlogged`` (a
            change that is not in the log), ``foreign`` (no object of the log) or ``unreadable``.
        message: What was found and expected.
    """

    place: str
    kind: BreakKind
    message: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Result of a verification.

    Attributes:
        head: The last entry; a copy of it outside of the store proves later that all up to it is as it was.
        breaks: Places where the log is not as it was written.
        num_waiting: Changes that are made and wait for the log, as their command was ended before it did.
        num_unlogged_tasks: Tasks whose last change was made before there was a log.
    """

    head: Pin
    breaks: tuple[Break, ...]
    num_waiting: int
    num_unlogged_tasks: int


@dataclass(frozen=True, kw_only=True)
class _Pinned:
    """A document, or a copy outside of the store, that knows an entry."""

    name: str
    trail: Trail
    record_id: str | None = None


def verify(store: PromptStore, known: Sequence[Pin] = ()) -> Verified:
    """Verify the audit log of a store; nothing is written.

    Args:
        store: The store.
        known: Entries as they were noted outside of the store.

    Raises:
        StoreError: The store cannot be read.
    """
    # The documents come first: what they pin is in a log that is listed later.
    log, breaks = AuditLog(store), list[Break]()
    documents = [*_read_documents(store, log, breaks), *_read_rollouts(store, breaks)]
    pinned = [*documents, *(_Pinned(name="the copy that was given", trail=Trail(last=pin)) for pin in known)]
    if (noted := log.noted_head()) is not None:
        pinned.append(_Pinned(name=HEAD, trail=Trail(last=noted)))
    breaks += _find_foreign(store)
    pins, records = _check_chain(log, breaks)
    last = max(pins, default=0)
    for document in pinned:
        breaks += _check_pin(document, pins, records, last)
    # A damaged entry is told once, however many documents know it.
    unique = {(one.place, one.kind): one for one in reversed(breaks)}
    return Verified(
        head=pins.get(last, NOWHERE),
        breaks=tuple(sorted(unique.values(), key=lambda one: (one.place, one.kind))),
        num_waiting=sum(len(document.trail.waiting) for document in documents),
        num_unlogged_tasks=sum(
            document.record_id is not None and document.trail == Trail() for document in documents
        ),
    )


def _check_chain(log: AuditLog, breaks: list[Break]) -> tuple[dict[int, Pin], dict[int, AuditRecord]]:
    """Pins and records of all entries that are there, by number; damage is noted."""
    pins: dict[int, Pin] = {}
    records: dict[int, AuditRecord] = {}
    seen: dict[str, int] = {}
    numbers, last = list(log.likely_numbers()), 0
    with ThreadPoolExecutor(NUM_READERS) as readers:
        for number, content in zip(numbers, readers.map(log.read_bytes, numbers), strict=True):
            if content is None:
                continue
            if number > last + 1:
                breaks.append(_missing(last + 1, number - 1))
            last, place = number, entry_key(number)
            pins[number] = Pin.of(number, content)
            try:
                entry = AuditEntry.from_json(content, place)
            except StoreError as error:
                breaks.append(Break(place=place, kind="damaged", message=str(error)))
                continue
            records[number] = entry.record
            breaks += _check_entry(number, entry, pins)
            first = seen.setdefault(entry.record.record_id, number)
            if first != number:
                breaks.append(_repeated(number, first))
    if numbers and numbers[-1] > last:
        breaks.append(_missing(last + 1, numbers[-1]))
    return pins, records


def _check_entry(number: int, entry: AuditEntry, pins: dict[int, Pin]) -> Iterator[Break]:
    """Compare an entry with its number, and with those before it that it knows."""
    place = entry_key(number)
    if entry.sequence != number or (entry.record.action == BEGIN) != (number == 1):
        found = f"entry {entry.sequence} ({entry.record.action})"
        yield Break(place=place, kind="misplaced", message=f"found {found}, expected entry {number}")
        return
    if entry.record.since.sequence >= number:
        yield Break(place=place, kind="misplaced", message="it says that it came after a later entry")
    for pin in (Pin(sequence=number - 1, digest=entry.previous), entry.record.since):
        before = pins.get(pin.sequence, NOWHERE if pin.sequence == 0 else None)
        if before is not None and before.digest != pin.digest:
            yield _changed(pin, before, f"entry {number}")


def _check_pin(
    document: _Pinned, pins: dict[int, Pin], records: dict[int, AuditRecord], last: int
) -> Iterator[Break]:
    """Compare a document with the entry that it pins."""
    pin = document.trail.last
    if pin is None:
        return
    found = pins.get(pin.sequence, NOWHERE if pin.sequence == 0 else None)
    if pin.sequence > last:
        yield Break(
            place=entry_key(last + 1),
            kind="truncated",
            message=f"the log ends with entry {last}, and {document.name} knows entry {pin.sequence}",
        )
    elif found is not None and found.digest != pin.digest:
        yield _changed(pin, found, document.name)
    elif (
        pin.sequence in records
        and not document.trail.waiting
        and document.record_id not in (None, logged := records[pin.sequence].record_id)
    ):
        yield Break(
            place=document.name,
            kind="unlogged",
            message=f"its last change is {document.record_id}, the last that is logged is {logged}",
        )


def _read_documents(store: PromptStore, log: AuditLog, breaks: list[Break]) -> Iterator[_Pinned]:
    """The documents of which there is one in a store."""

    def owner() -> Trail | None:
        return None if (found := store.read_owner()) is None else found[0].trail

    def tokens() -> Trail | None:
        return None if (found := store.read_tokens()) is None else found[0].trail

    def approvals() -> Trail | None:
        return Approvals(store, log).read().trail

    for name, read in (("registry.json", owner), ("tokens.json", tokens), (KEY, approvals)):
        try:
            trail = read()
        except StoreError as error:
            breaks.append(Break(place=name, kind="unreadable", message=str(error)))
        else:
            if trail is not None:
                yield _Pinned(name=name, trail=trail)


def _read_rollouts(store: PromptStore, breaks: list[Break]) -> Iterator[_Pinned]:
    def read(task: str) -> _Pinned | Break | None:
        name = f"rollouts/{task}.json"
        try:
            found = store.read_rollout(task)
        except StoreError as error:
            return Break(place=name, kind="unreadable", message=str(error))
        if found is None:
            return None
        return _Pinned(name=name, trail=found[0].trail, record_id=found[0].change.change_id)

    with ThreadPoolExecutor(NUM_READERS) as readers:
        for found in readers.map(read, [task for task, _ in store.scan_rollouts()]):
            if isinstance(found, Break):
                breaks.append(found)
            elif found is not None:
                yield found


def _find_foreign(store: PromptStore) -> Iterator[Break]:
    for key in store.objects.list(FOLDER):
        name = key.removeprefix(FOLDER).removesuffix(".json")
        if key != HEAD and not (name.isdecimal() and int(name) > 0 and key == entry_key(int(name))):
            yield Break(place=key, kind="foreign", message="it is no object of the log")


def _missing(first: int, last: int) -> Break:
    named = f"entry {first} is" if first == last else f"entries {first} to {last} are"
    return Break(place=entry_key(first), kind="missing", message=f"{named} not there, later ones are")


def _repeated(number: int, first: int) -> Break:
    return Break(
        place=entry_key(number), kind="repeated", message=f"entry {first} tells the same change already"
    )


def _changed(pin: Pin, found: Pin, knows: str) -> Break:
    return Break(
        place=entry_key(pin.sequence),
        kind="changed",
        message=f"sha256 {found.digest[:12]}..., and {knows} knows it as {pin.digest[:12]}...",
    )
