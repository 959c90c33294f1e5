"""Search in the audit log: entries of a task, of a person, of a kind, of a time; the last one first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import AuditEntry, DamagedEntry

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

    def fits(self, entry: AuditEntry | DamagedEntry) -> bool:
        """Whether an entry is wanted; a damaged one may be any, for those who may see all."""
        if isinstance(entry, DamagedEntry):
            return self.may_see(None)
        record = entry.record
        return (
            self.may_see(record.task)
            and self.task in (None, record.task)
            and self.action in (None, record.action)
            and (self.by is None or self.by.casefold() in record.by.casefold())
            and (self.since_s is None or record.time_s >= self.since_s)
            and (self.until_s is None or record.time_s < self.until_s)
        )

    def is_over(self, entry: AuditEntry | DamagedEntry) -> bool:
        """Whether no entry before this one is wanted."""
        if self.since_s is None or isinstance(entry, DamagedEntry):
            return False
        return entry.record.time_s < self.since_s - _CLOCKS_DIFFER_S


@dataclass(frozen=True, kw_only=True)
class Found:
    """A page of entries.

    Attributes:
        entries: The entries, the last one first.
        before: Where the search goes on: entries before that number; None if there are none.
    """

    entries: tuple[AuditEntry | DamagedEntry, ...]
    before: int | None


def search(log: AuditLog, wanted: Wanted) -> Iterator[AuditEntry | DamagedEntry]:
    """All entries that are wanted, the last one first."""
    for _, entry in log.look():
        if entry is None:
            continue
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
        max_read: The most numbers to look at, however few entries are wanted, or there.
    """
    found: list[AuditEntry | DamagedEntry] = []
    last = 1
    for number, entry in islice(log.look(before), max_read):
        last = number
        if entry is None:
            continue
        if wanted.is_over(entry):
            return Found(entries=tuple(found), before=None)
        if wanted.fits(entry):
            found.append(entry)
            if len(found) == limit:
                break
    return Found(entries=tuple(found), before=last if last > 1 else None)
