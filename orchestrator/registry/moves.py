"""Moves of aliases, as pure functions: what a command or the gate makes of a rollout."""

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.registry.versions import (
    CANARY,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RETIRED,
    SHADOW,
    Promotion,
)
from orchestrator.store.documents.rollout import Aliases, Change, Pending, Rollout

__all__ = [
    "ask",
    "ask_for_gate",
    "challenge",
    "is_void",
    "promote",
    "promotion",
    "retire",
    "retired_version",
    "take_in",
]


def promote(rollout: Rollout, version: int, digest: str | None) -> Rollout:
    """Let a version serve; the champion before it becomes ``previous``, unless it is the same artifact.

    The champion before it may be the one of a retired task, which comes back by this. A challenger, a canary
    or a shadow of that version ends, and a request for it is met.
    """
    champion = rollout.version(CHAMPION)
    if champion == version:
        return rollout
    moved: dict[str, int | None] = {CHAMPION: version, RETIRED: None}
    role = CHAMPION if champion is not None else RETIRED
    before = rollout.version(role)
    if before not in (None, version) and rollout.digest(role) != digest:
        moved[PREVIOUS] = before
    elif rollout.version(PREVIOUS) == version or rollout.digest(PREVIOUS) == digest:
        moved[PREVIOUS] = None
    for alias in (CHALLENGER, CANARY, SHADOW):
        if rollout.version(alias) == version:
            moved[alias] = None
    pending = rollout.pending
    if pending is not None and pending.version == version:
        pending = None
    return replace(rollout, aliases=rollout.aliases.moved(moved), pending=pending)


def retire(rollout: Rollout) -> Rollout:
    """Let no version serve; the champion becomes ``retired``, and the others keep their places."""
    champion = rollout.version(CHAMPION)
    aliases = rollout.aliases.moved({RETIRED: champion, CHAMPION: None, CANARY: None, SHADOW: None})
    return replace(rollout, aliases=aliases)


def retired_version(aliases: Aliases) -> int | None:
    """The version that served before the task was retired; None of a task that was not."""
    return None if CHAMPION in aliases.versions else aliases.versions.get(RETIRED)


def challenge(rollout: Rollout, version: int, published_s: float) -> Aliases:
    """Let a version wait for a decision, unless a newer one does already, or it has a role of its own."""
    aliases = rollout.aliases
    if version in aliases.versions.values():
        return aliases
    waiting = aliases.versions.get(CHALLENGER)
    if waiting is not None and rollout.versions[waiting].published_s > published_s:
        return aliases
    return aliases.moved({CHALLENGER: version})


def ask(rollout: Rollout, version: int, digest: str | None, request: Change) -> Pending:
    """The request to let a version serve; the one that waits, if the same person asked for the same."""
    champion = rollout.version(CHAMPION)
    known = rollout.pending
    if known is not None and (known.version, known.digest, known.champion, known.request.by) == (
        version,
        digest,
        champion,
        request.by,
    ):
        return known
    return Pending(version=version, digest=digest, champion=champion, request=request)


def ask_for_gate(rollout: Rollout, version: int, digest: str | None, request: Change) -> tuple[Pending, str]:
    """The request that waits once a version has passed the gate, and why that version does not serve yet.

    A request that a person has made stays, unless it is void.
    """
    pending, task = rollout.pending, rollout.task
    if pending is None or is_void(rollout) or pending.request.kind == "gate":
        asked = ask(rollout, version, digest, request)
        return asked, f"It waits for a second person: `ship approve {task}`."
    return pending, (
        f"It waits, as {pending.request.by} asked for version {pending.version}; `ship promote {task} "
        f"{version}` asks for this one."
    )


def is_void(rollout: Rollout) -> bool:
    """Whether another version than the one that its request was made against serves meanwhile."""
    return rollout.pending is not None and rollout.pending.champion != rollout.version(CHAMPION)


def promotion(before: Rollout, after: Rollout, asked: int | None = None) -> Promotion:
    """What came of a promotion; ``asked`` is the version that was asked for, if it may wait."""
    champion, pending = after.version(CHAMPION), after.pending
    waits = asked not in (None, champion) and pending is not None and pending.version == asked
    to_version = asked if waits else champion
    assert to_version is not None
    return Promotion(
        task=after.task, from_version=before.version(CHAMPION), to_version=to_version, waits=waits
    )


def take_in(rollout: Rollout, found: Aliases, now_s: float) -> Aliases:
    """Aliases after moves that a person made in MLflow's own page.

    An alias that differs from the one wanted was moved by a person, unless it is as it was when MLflow was
    last brought in line (the mirror is behind), or as a mirror that is late may have written it a moment ago.
    A champion that was moved leaves the one before as ``previous``, so that a rollback undoes the move.

    Args:
        rollout: The rollout, read before the aliases.
        found: Aliases in MLflow.
        now_s: Current time, seconds since the epoch.
    """
    wanted = rollout.aliases
    late = [one.aliases for one in rollout.earlier if one.until_s > now_s]
    behind = [wanted, rollout.mirrored, *late]
    names = {*wanted.versions, *found.versions, *rollout.mirrored.versions}
    moved = {
        name: found.versions.get(name)
        for name in sorted(names)
        if found.versions.get(name) not in _values(behind, name)
    }
    share = wanted.share
    if CANARY in moved or found.share not in {aliases.share for aliases in behind}:
        moved[CANARY], share = found.versions.get(CANARY), found.share
    if moved.get(CHAMPION) is not None:
        # It serves again.
        moved.setdefault(RETIRED, None)
    champion = rollout.version(CHAMPION)
    if CHAMPION in moved and PREVIOUS not in moved and champion is not None and moved[CHAMPION] is not None:
        moved[PREVIOUS] = champion
    return wanted.moved(moved, share=share)


def _values(states: Iterable[Aliases], name: str) -> set[int | None]:
    return {aliases.versions.get(name) for aliases in states}
