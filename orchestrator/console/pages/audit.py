"""Pages of the audit log: who decided what, when and why; and whether the log is whole."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request

from orchestrator.console.access import person_of, services_of
from orchestrator.console.rendering import add_page
from orchestrator.durations import parse_time
from orchestrator.registry.plain_values import damaged_json, entry_json, moves_text
from orchestrator.store.audit.search import Wanted, search_page
from orchestrator.store.documents.audit import EXPECTED_PIN, AuditEntry, DamagedEntry, Pin

__all__ = ["router"]

router = APIRouter()
_Text = Annotated[str, Query(max_length=200)]


def read_audit(
    request: Request,
    task: _Text = "",
    by: _Text = "",
    action: _Text = "",
    since: _Text = "",
    until: _Text = "",
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    """Entries about tasks that the sender may see, the last one first; about no task, if that is all of them.

    So it is with damaged entries, which tell of no task.

    Args:
        request: The request.
        task: Name of a task.
        by: Part of a person's name.
        action: What was done, such as ``promote``.
        since: A duration before now, or a date.
        until: The same.
        before: Number of an entry: those before it.
        limit: The most entries.
    """
    person, services = person_of(request), services_of(request)
    now_s = services.clock()
    wanted = Wanted(
        task=task or None,
        by=by or None,
        action=action or None,
        since_s=_time(since, "since", now_s),
        until_s=_time(until, "until", now_s),
        may_see=lambda about: person.sees_all if about is None else person.sees(about),
    )
    found = search_page(services.audit, wanted, before=before, limit=limit)
    return {
        "entries": [_values(entry) for entry in found.entries],
        "before": found.before,
        "may_verify": person.sees_all,
        "view": {"task": task, "by": by, "action": action, "since": since, "until": until, "limit": limit},
    }


def _values(entry: AuditEntry | DamagedEntry) -> dict[str, Any]:
    if isinstance(entry, DamagedEntry):
        return damaged_json(entry) | {"moves": ""}
    return {**entry_json(entry), "moves": moves_text(entry.record.before, entry.record.after)}


def read_verification(
    request: Request,
    known: Annotated[list[str], Query(max_length=20)] = [],  # noqa: B006 - it is copied
) -> dict[str, Any]:
    """Whether an entry is missing or was changed; reads the whole log and all documents that it tells of.

    Args:
        request: The request.
        known: Entries as an earlier verification printed them, ``NUMBER:DIGEST``.
    """
    from orchestrator.store.audit.verification import verify

    if not person_of(request).sees_all:
        raise HTTPException(403, "The log is verified as a whole, which takes a token for all tasks.")
    pins = [_pin(text) for text in known if text.strip()]
    verified = verify(services_of(request).store, pins)
    head = verified.head
    return {**asdict(verified), "head_text": f"{head.sequence}:{head.digest}", "known": known}


def _time(text: str, name: str, now_s: float) -> float | None:
    if not text.strip():
        return None
    try:
        return parse_time(text.strip(), now_s)
    except (ValueError, OverflowError) as error:
        raise HTTPException(422, f"{name} {text[:80]!r}: {error}") from None


def _pin(text: str) -> Pin:
    if (pin := Pin.parse(text.strip())) is None:
        raise HTTPException(422, f"known {text[:100]!r}: {EXPECTED_PIN}")
    return pin


add_page(router, "/audit", "audit.html", read_audit)
add_page(router, "/audit/verify", "audit_verify.html", read_verification)
