"""Search in the audit log: entries of a task, of a person, of a kind, of a time; the last one first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import NOWHERE, AuditEntry, Pin

__all__ = ["Found", "Wanted", "search", "search_page"]

# Clocks of hosts differ, so the order of the log is not quite that of the times.
_CLOCKS_DIFFER_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is searched for; None for any.

    Attributes:
        task: Name of the task.
        by: Part of the name of the person.
        action: What was done.
        since_s: Seconds since the epoch.
        until_s: The same.
        may_see: Whether an entry about a task, or about none, may be seen.
    """

    task: str | None = None
    by: str | None = None
    action: str | None = None
    since_s: float | None = None
    until_s: float | None = None
    may_see: Callable[[str | None], bool] = lambda task: True

    def fits(self, entry: AuditEntry) -> bool:
        """Whether an entry is wanted."""
        record = entry.record
        return (
            self.may_see(record.task)
            and self.task in (None, record.task)
            and self.action in (None, record.action)
            and (self.by is None or self.by.casefold() in record.by.casefold())
            and (self.since_s is None or record.time_s >= self.since_s)
            and (self.until_s is None or record.time_s < self.until_s)
        )

    def is_over(self, entry: AuditEntry) -> bool:
        """Whether no entry before this one is wanted."""
        return self.since_s is not None and entry.record.time_s < self.since_s - _CLOCKS_DIFFER_S


@dataclass(frozen=True, kw_only=True)
class Found:
    """A page of entries.

    Attributes:
        entries: The entries, the last one first.
        before: Where the search goes on: entries before that number; None if there are none.
    """

    entries: tuple[AuditEntry, ...]
    before: int | None


def search(log: AuditLog, wanted: Wanted) -> Iterator[AuditEntry]:
    """All entries that are wanted, the last one first."""
    for entry in log.newest():
        if wanted.is_over(entry):
            return
        if wanted.fits(entry):
            yield entry


def search_page(
    log: AuditLog, wanted: Wanted, *, before: int | None = None, limit: int = 50, max_read: int = 2000
) -> Found:
    """A page of the entries that are wanted.

    Args:
        log: The log.
        wanted: What is searched for.
        before: The number of an entry: those before it; None for all.
        limit: The most entries to give.
        max_read: The most entries to read, however few are wanted.
    """
    head = log.head() if before is None else Pin(sequence=max(0, before - 1), digest=NOWHERE.digest)
    found: list[AuditEntry] = []
    last = head.sequence + 1
    for entry in islice(log.newest(head), max_read):
        if wanted.is_over(entry):
            return Found(entries=tuple(found), before=None)
        last = entry.sequence
        if wanted.fits(entry):
            found.append(entry)
            if len(found) == limit:
                break
    return Found(entries=tuple(found), before=last if last > 1 else None)
