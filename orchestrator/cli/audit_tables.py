"""The audit log and promotions that wait in words."""

from typing import TYPE_CHECKING

from orchestrator.cli.output import format_time
from orchestrator.registry.plain_values import moves_text

if TYPE_CHECKING:
    from orchestrator.store.documents.audit import AuditEntry, DamagedEntry
    from orchestrator.store.documents.rollout import Rollout

__all__ = ["damaged_line", "entry_line", "pending_line"]


def entry_line(entry: "AuditEntry") -> str:
    """One entry of the audit log on one line."""
    record = entry.record
    user = f" ({record.user})" if record.user not in ("", record.by) else ""
    reason = f": {record.reason}" if record.reason else ""
    what = " ".join(filter(None, [record.action, record.task, moves_text(record.before, record.after)]))
    by = f"by {record.by}{user} on {record.host}"
    return f"{entry.sequence}  {format_time(record.time_s)}  {what}  {by}{reason}"


def damaged_line(entry: "DamagedEntry") -> str:
    """An entry of the audit log that cannot be read, on one line."""
    return f"{entry.sequence}  damaged: {entry.problem}"


def pending_line(rollout: "Rollout") -> str:
    """The promotion that waits for an approval, in words."""
    from orchestrator.registry.moves import is_void

    pending, task = rollout.pending, rollout.task
    assert pending is not None
    asked = pending.request
    said = f"{asked.by} asked at {format_time(asked.time_s)}" + (f": {asked.reason}" if asked.reason else "")
    if is_void(rollout):
        return (
            f"{task}: the request to promote version {pending.version} is void, as another version serves "
            f"since ({said}); `ship promote {task} {pending.version}` asks again"
        )
    return (
        f"{task}: version {pending.version} waits for an approval by another person: `ship approve {task}` "
        f"({said})"
    )
