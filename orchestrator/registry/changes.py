"""What a change of a rollout tells the audit log: the parts that differ, with their artifacts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.rollout import Rollout

__all__ = ["differences", "logged"]


def logged(
    log: AuditLog, before: Rollout, after: Rollout, user: str, told: Mapping[str, Any] | None = None
) -> Rollout:
    """The rollout after a change, with the change in its trail.

    Args:
        log: The audit log.
        before: The rollout before the change.
        after: The rollout after it.
        user: User of the operating system; empty where that is not known.
        told: Further values for ``after`` in the log.

    Raises:
        StoreError: The log cannot be read, or too many changes wait for it.
    """
    change = after.change
    was, became = differences(before, after)
    record = log.record(
        change.kind,
        after.task,
        was,
        {**became, **(told or {})},
        Author(by=change.by, host=change.host, user=user),
        reason=change.reason,
        record_id=change.change_id,
    )
    return replace(after, trail=before.trail.add(record))


def differences(before: Rollout, after: Rollout) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that a change has changed, as they were and as they are, by name."""
    was, became = _state_of(before), _state_of(after)
    names = [name for name in {**was, **became} if was.get(name) != became.get(name)]
    return {name: was.get(name) for name in names}, {name: became.get(name) for name in names}


def _state_of(rollout: Rollout) -> dict[str, Any]:
    aliases = rollout.aliases
    state: dict[str, Any] = {
        alias: {"version": version, "digest": rollout.versions[version].digest}
        for alias, version in sorted(aliases.versions.items())
    }
    if aliases.share is not None:
        state["share"] = aliases.share
    if (pending := rollout.pending) is not None:
        state["pending"] = {"version": pending.version, "digest": pending.digest, "by": pending.request.by}
    rules = {f"rule of {artifact}": rule for artifact, rule in rollout.rules.items()}
    return {**state, **rules, "generation": rollout.generation}
