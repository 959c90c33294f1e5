"""The rollout of a task: which of its versions serve and are tried, and by which change that came about.

One small object a task, ``rollouts/<task>.json``, that every change replaces by one conditional write. The
aliases of the task's registered model in MLflow follow it; ``mirrored`` tells which of them have, so that a
mirror that was interrupted is told from an alias that a person moved in MLflow's own page.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from orchestrator.errors import StoreError
from orchestrator.names import check_task_name
from orchestrator.store.documents.audit import Trail
from orchestrator.store.documents.writing import to_bytes

__all__ = [
    "LATE_WRITE_S",
    "MAX_ROLLOUT_BYTES",
    "SCHEMA_VERSION",
    "Aliases",
    "BrokenRolloutError",
    "Change",
    "ChangeKind",
    "Earlier",
    "Pending",
    "Rollout",
    "VersionRef",
    "rollout_key",
]

SCHEMA_VERSION = 1
MAX_ROLLOUT_BYTES = 64 << 10
# A request to MLflow that was sent before its sender was ended arrives within this time, or never.
LATE_WRITE_S = 120.0
_MAX_EARLIER = 16
# Artifacts whose rules are known; those of older ones are forgotten first, of versions without an alias.
_MAX_RULES = 128

ChangeKind = Literal[
    "gate",
    "promote",
    "request",
    "approve",
    "reject",
    "rollback",
    "canary",
    "stop-canary",
    "shadow",
    "stop-shadow",
    "threshold",
    "retire",
    "mlflow",
    "drop",
]
CHAMPION = "champion"


@dataclass(frozen=True, kw_only=True)
class VersionRef:
    """A version that has an alias.

    Attributes:
        digest: Digest of its artifact; None for a version registered by another program.
        published_s: Time of its publication, seconds since the epoch.
    """

    digest: str | None
    published_s: float


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """Aliases of a task's versions.

    Attributes:
        versions: Version by alias: ``champion``, ``previous``, ``challenger``, ``canary``, ``shadow`` and any
            that were made in MLflow.
        share: The canary's share of the requests, above 0 and below 1; None without a canary.
    """

    versions: Mapping[str, int] = field(default_factory=dict)
    share: float | None = None

    def moved(
        self, moves: Mapping[str, int | None], *, share: float | Literal["same"] | None = "same"
    ) -> Self:
        """The aliases after some were moved; None drops one, and the share goes with ``canary``."""
        versions = {name: at for name, at in {**self.versions, **moves}.items() if at is not None}
        kept = self.share if share == "same" else share
        return replace(self, versions=versions, share=kept if "canary" in versions else None)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a rollout.

    Attributes:
        kind: Command or process that made it; ``mlflow`` for aliases that were moved in MLflow's own page.
        by: Name of the user, ``unknown`` if MLflow does not tell it.
        host: Name of the machine.
        time_s: Seconds since the epoch, by the clock of that machine.
        reason: Reason that was given, the gate's for its decisions.
        change_id: Unique; a writer whose answer was lost knows its own change by it.
    """

    kind: ChangeKind
    by: str
    host: str
    time_s: float
    reason: str
    change_id: str


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Aliases of a moment ago, which a mirror that is late may still write.

    Attributes:
        until_s: Time until which it may, seconds since the epoch.
        aliases: The aliases.
        change_id: Of the change that brought them about.
    """

    until_s: float
    aliases: Aliases
    change_id: str


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A promotion that waits for the approval of a second person.

    Attributes:
        version: The version that is to serve.
        digest: Digest of its artifact.
        champion: The champion that it was asked against; another one makes the request void.
        request: The change that asked for it.
    """

    version: int
    digest: str | None
    champion: int | None
    request: Change


class BrokenRolloutError(StoreError):
    """What is stored as a task's rollout is none.

    Attributes:
        etag: Its etag, for the rollout that replaces it.
    """

    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The rollout of a task.

    Attributes:
        task: Name of the task.
        model_ms: Time at which the registered model was made, in milliseconds: one that was deleted and made
            again counts its versions from 1 again.
        generation: Number of changes, from 1.
        aliases: Aliases as they are wanted.
        mirrored: Aliases as MLflow had them when it was last brought in line.
        versions: The versions that have an alias.
        change: The last change.
        earlier: Aliases before the changes of the last ``LATE_WRITE_S``.
        pending: The promotion that waits for approval, if one does.
        trail: Its changes in the audit log.
        rules: Digest of the decision rule by digest of the artifact, in the order in which they were set; an
            artifact that is not among them decides by its own rule. A version takes its rule along, whatever
            is promoted in between.
        champion_s: When the champion began to serve, seconds since the epoch; None without a champion, and
            where it is not known.
    """

    task: str
    model_ms: int
    generation: int
    aliases: Aliases
    mirrored: Aliases
    versions: Mapping[int, VersionRef]
    change: Change
    earlier: tuple[Earlier, ...] = ()
    pending: Pending | None = None
    trail: Trail = field(default_factory=Trail)
    rules: Mapping[str, str] = field(default_factory=dict)
    champion_s: float | None = None

    @property
    def is_mirrored(self) -> bool:
        """Whether MLflow has been brought in line."""
        return self.mirrored == self.aliases

    def has_change(self, change_id: str) -> bool:
        """Whether a change of the last ``LATE_WRITE_S`` is in it."""
        return change_id in {self.change.change_id, *(one.change_id for one in self.earlier)}

    def version(self, alias: str) -> int | None:
        """The version that has an alias, if one has."""
        return self.aliases.versions.get(alias)

    def digest(self, alias: str) -> str | None:
        """Digest of the version that has an alias."""
        version = self.version(alias)
        return None if version is None else self.versions[version].digest

    def with_rule(self, artifact: str, rule: str | None) -> Self:
        """The rollout with another decision rule of an artifact; None for the artifact's own."""
        rules = {known: digest for known, digest in self.rules.items() if known != artifact}
        if rule is not None:
            rules[artifact] = rule
        named = {ref.digest for ref in self.versions.values()}
        spare = [known for known in rules if known not in named and known != artifact]
        for known in spare[: max(0, len(rules) - _MAX_RULES)]:
            del rules[known]
        return replace(self, rules=rules)

    def changed(self, aliases: Aliases, versions: Mapping[int, VersionRef], change: Change) -> Self:
        """The rollout after a change.

        Args:
            aliases: Aliases from now on.
            versions: Versions besides those that it knows.
            change: Who changed it, and why.
        """
        known = {**self.versions, **versions}
        now_s = change.time_s
        late = [one for one in self.earlier if now_s < one.until_s <= now_s + LATE_WRITE_S]
        late.append(
            Earlier(until_s=now_s + LATE_WRITE_S, aliases=self.aliases, change_id=self.change.change_id)
        )
        champion = aliases.versions.get(CHAMPION)
        if champion != self.version(CHAMPION):
            champion_s = None if champion is None else now_s
        else:
            champion_s = self.champion_s
        return replace(
            self,
            champion_s=champion_s,
            generation=self.generation + 1,
            aliases=aliases,
            versions={version: known[version] for version in sorted(set(aliases.versions.values()))},
            change=change,
            earlier=tuple(late[-_MAX_EARLIER:]),
        )

    def to_json(self) -> bytes:
        """The object's content.

        Raises:
            StoreError: It would be larger than a reader takes.
        """
        values: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "task": self.task,
            "model_ms": self.model_ms,
            "generation": self.generation,
            "aliases": _alias_values(self.aliases),
            "mirrored": _alias_values(self.mirrored),
            "versions": {str(version): vars(ref) for version, ref in self.versions.items()},
            "change": vars(self.change),
            "champion_s": self.champion_s,
            "earlier": [{**vars(one), "aliases": _alias_values(one.aliases)} for one in self.earlier],
        }
        if self.pending is not None:
            values["pending"] = {**vars(self.pending), "request": vars(self.pending.request)}
        if trail := self.trail.to_dict():
            values["trail"] = trail
        if self.rules:
            values["rules"] = [{"artifact": artifact, "rule": rule} for artifact, rule in self.rules.items()]
        content = to_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n")
        if len(content) > MAX_ROLLOUT_BYTES:
            raise StoreError(
                f"rollout of task {self.task!r}: {len(content)} bytes, expected at most {MAX_ROLLOUT_BYTES}; "
                f"it has {len(self.aliases.versions)} aliases: delete those that are not needed in MLflow"
            )
        return content

    @classmethod
    def from_json(cls, content: bytes, where: str) -> "Rollout":
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        # Imported here: the registry's commands use these values, and start without pydantic.
        from orchestrator.store.documents.rollout_document import read_rollout

        return read_rollout(content, where)


def rollout_key(task: str) -> str:
    """Key of the object that has a task's rollout."""
    return f"rollouts/{check_task_name(task)}.json"


def _alias_values(aliases: Aliases) -> dict[str, Any]:
    return {"versions": dict(aliases.versions), "share": aliases.share}
