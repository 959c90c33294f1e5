"""Versions, rules, requests and log entries as plain values: what ``--json`` and the console's pages give.

Loads fast: nothing of MLflow, and no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ship.findings import find_warnings

if TYPE_CHECKING:
    from orchestrator.registry.thresholds import Standing
    from orchestrator.registry.versions import VersionInfo
    from orchestrator.store.documents.audit import AuditEntry, DamagedEntry
    from orchestrator.store.documents.rollout import Rollout
    from ship.decision.rule import DecisionRule

__all__ = [
    "bytes_by_part",
    "damaged_json",
    "entry_json",
    "format_time",
    "moves_text",
    "pending_json",
    "place_json",
    "rule_json",
    "version_json",
]

# Of an entry of the audit log, beside its number.
_ENTRY_KEYS = (
    *("id", "time", "since", "action", "task", "before", "after", "reason", "by", "user", "host", "time_s"),
    "previous",
)


def format_time(seconds: float) -> str:
    """Seconds since the epoch as a UTC time in ISO 8601."""
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def version_json(info: "VersionInfo") -> dict[str, Any]:
    """One version as plain values."""
    return {
        "version": info.version,
        "aliases": list(info.aliases),
        "digest": info.digest,
        "source": info.source,
        "metrics": dict(info.metrics),
        "bytes": bytes_by_part(info) or None,
        "gate": info.gate_reason,
        "verdict": _advice_json(info),
        "choice": info.choice,
        "warnings": find_warnings(info.metrics),
        "created": format_time(info.created_s),
        "run_id": info.run_id,
    }


def bytes_by_part(info: "VersionInfo") -> dict[str, int]:
    """Bytes on the device in float32 by part; empty for a version that was made before they were measured."""
    sizes = {name: size for name, size in info.metrics.items() if name.endswith("_bytes")}
    return {name.removesuffix("_bytes"): int(size) for name, size in sizes.items()}


def pending_json(rollout: "Rollout | None") -> dict[str, Any] | None:
    """The promotion that waits for an approval as plain values; None if none does."""
    from orchestrator.registry.moves import is_void

    if rollout is None or rollout.pending is None:
        return None
    pending, asked = rollout.pending, rollout.pending.request
    return {
        "version": pending.version,
        "digest": pending.digest,
        "champion": pending.champion,
        "is_void": is_void(rollout),
        "by": asked.by,
        "host": asked.host,
        "time": format_time(asked.time_s),
        "reason": asked.reason,
    }


def entry_json(entry: "AuditEntry") -> dict[str, Any]:
    """One entry of the audit log as plain values."""
    values = entry.record.to_dict()
    record_id = values.pop("record_id")
    return {
        "sequence": entry.sequence,
        "id": record_id,
        "time": format_time(entry.record.time_s),
        **values,
        "previous": entry.previous,
        "damaged": None,
    }


def damaged_json(entry: "DamagedEntry") -> dict[str, Any]:
    """An entry of the audit log that cannot be read, with the keys of one that can; ``damaged`` says why."""
    return {"sequence": entry.sequence, **dict.fromkeys(_ENTRY_KEYS), "damaged": entry.problem}


def moves_text(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What was changed: ``champion v1 -> v2, share - -> 0.1``."""
    names = [name for name in {**before, **after} if name not in ("generation", "artifacts")]
    return ", ".join(f"{name} {_value(before.get(name))} -> {_value(after.get(name))}" for name in names)


def place_json(standing: "Standing") -> dict[str, Any]:
    """The version that a rule is of."""
    return {"task": standing.task, "version": standing.version, "artifact": standing.artifact}


def rule_json(rule: "DecisionRule | None", standing: "Standing | None") -> dict[str, Any]:
    """A rule as plain values; without a standing it is not in the store."""
    stored = None if standing is None else standing.stored
    origin = {"by": stored.by, "host": stored.host, "reason": stored.reason} if stored else None
    return {
        "rule": None if standing is None else standing.digest,
        "set": {"time": format_time(stored.time_s), **origin} if stored and origin else None,
        "decision": None if rule is None else rule.to_dict(),
    }


def _advice_json(info: "VersionInfo") -> dict[str, Any] | None:
    """The verdict on a version, as it stands now: whatever the gate said, a champion serves, and no other."""
    if "champion" in info.aliases:
        return {"kind": "serves"}
    return None if info.advice is None or info.advice.kind == "serves" else asdict(info.advice)


def _value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        version = value.get("version")
        return "set" if version is None else f"v{version}"
    if isinstance(value, list):
        return ",".join(map(str, value[:5])) + ("..." if len(value) > 5 else "") or "none"
    return str(value)[:60]
