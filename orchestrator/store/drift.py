"""What a store knows of drift: reads ``drift.json``, and acknowledges alarms."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from orchestrator.errors import ManifestError, ObjectConflict, ObjectMissing
from orchestrator.store.audit.log import AuditLog, HasObjects
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.drift import (
    DRIFT_KEY,
    MAX_DRIFT_BYTES,
    Acknowledged,
    DriftEntry,
    DriftStates,
)
from orchestrator.store.objects.protocol import ObjectStore
from ship.evaluation.drift import TOLERANCE

__all__ = ["acknowledge", "describe", "read_drift", "write_drift"]

_NUM_TRIES = 20


def read_drift(
    objects: ObjectStore, known: tuple[DriftStates, str | None] = (DriftStates(), None)
) -> tuple[DriftStates, str | None]:
    """States of the watched tasks with the object's etag; none, and None, before the first.

    Args:
        objects: Object store.
        known: What was read before, which is not read again if it is still so.

    Raises:
        StoreError: They are damaged, or cannot be read.
    """
    try:
        if known[1] is None:
            stored = objects.get(DRIFT_KEY, max_bytes=MAX_DRIFT_BYTES)
        elif (found := objects.get_unless(DRIFT_KEY, known[1], max_bytes=MAX_DRIFT_BYTES)) is None:
            return known
        else:
            stored = found
    except ObjectMissing:
        return DriftStates(), None
    return DriftStates.from_json(stored.data), stored.etag


def write_drift(objects: ObjectStore, states: DriftStates, if_match: str | None) -> None:
    """Write them if nobody has changed them since.

    Raises:
        ObjectConflict: Another writer was faster.
        StoreError: The store failed.
    """
    content = states.to_json()
    if if_match is not None:
        objects.put(DRIFT_KEY, content, if_match=if_match)
    elif not objects.put_new(DRIFT_KEY, content):
        raise ObjectConflict(f"{objects.url}/{DRIFT_KEY}: another writer was faster; read it again")


def acknowledge(
    store: HasObjects,
    task: str,
    author: Author,
    *,
    accepts: bool = False,
    clock: Callable[[], float] = time.time,
) -> DriftEntry:
    """Acknowledge the alarm of a task, for the audit log, too.

    Args:
        store: The store.
        task: Its name.
        author: Who does so, and why.
        accepts: Whether the last pictures are what is compared with from now on: the watch begins anew.
        clock: Current time, seconds since the epoch.

    Raises:
        ManifestError: The task is not watched, or has no alarm.
        StoreError: The store failed.
    """
    for _ in range(_NUM_TRIES):
        states, etag = read_drift(store.objects)
        before = states.tasks.get(task)
        if before is None or before.alarm is None:
            known = "it is not watched" if before is None else f"it is {before.state}"
            raise ManifestError(f"task {task!r} has no alarm of drift to acknowledge: {known}")
        after = _acknowledged(before, author, clock(), accepts=accepts)
        try:
            write_drift(store.objects, DriftStates(tasks={**states.tasks, task: after}), etag)
        except ObjectConflict:
            continue
        told = {"signals": list(before.alarm.signals), "num_seen": before.alarm.num_seen}
        after_told = {"accepted": accepts, "digest": after.digest, "rule": after.rule}
        AuditLog(store, clock).append("drift-ack", task, told, after_told, author.reason, author)
        return after
    raise ObjectConflict(f"{store.objects.url}/{DRIFT_KEY}: others changed it {_NUM_TRIES} times; try again")


def _acknowledged(before: DriftEntry, author: Author, now_s: float, *, accepts: bool) -> DriftEntry:
    given = Acknowledged(time_s=now_s, by=author.by, reason=author.reason)
    if not accepts or before.recent is None:
        return replace(before, acknowledged=given)
    return replace(
        before,
        reference=before.recent,
        alarm=None,
        acknowledged=given,
        is_accepted=True,
        evidence=0.0,
        num_seen=0,
    )


def describe(entry: DriftEntry) -> dict[str, Any]:
    """An entry as plain values for people and scripts: shares lately, of the reference, and at most."""
    reference, recent, alarm = entry.reference, entry.recent, entry.alarm
    shares = []
    if reference is not None:
        bounds = reference.bounds(TOLERANCE)
        for place, mark in enumerate(reference.cuts.marks()):
            seen = None if recent is None or not recent.num else recent.counts[place] / recent.num
            shares.append(
                {
                    "mark": mark,
                    "meaning": _meaning(mark),
                    "recent": seen,
                    "reference": reference.counts[place] / reference.num,
                    "most": bounds[place],
                }
            )
    return {
        "state": entry.state,
        "digest": entry.digest,
        "rule": entry.rule,
        "time_s": entry.time_s,
        "num_seen": entry.num_seen,
        "num_recent": 0 if recent is None else recent.num,
        "num_reference": 0 if reference is None else reference.num,
        "evidence": entry.evidence,
        "not_watched": entry.not_watched,
        "alarm": None if alarm is None else asdict(alarm),
        "acknowledged": None if entry.acknowledged is None else asdict(entry.acknowledged),
        "is_accepted": entry.is_accepted,
        "shares": shares,
    }


def _meaning(mark: str) -> str:
    signal, _, detail = mark.partition(":")
    if signal == "class":
        word, _, label = detail.partition(":")
        return {"is": f"predicted {label}", "not": f"not predicted {label}"}.get(word, "any other class")
    return {
        "unsure:": "unsure",
        "confidence:low": "less confident than nine tenths of the held-out pictures",
        "distance:far0": "farther than half of the held-out pictures",
        "distance:far1": "farther than nine tenths of the held-out pictures",
        "distance:near": "closer than nine tenths of the held-out pictures",
        "distance:within": "no farther than nine tenths of the held-out pictures",
    }[mark]
