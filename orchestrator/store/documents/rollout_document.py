"""The strict model of a rollout's JSON."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from orchestrator.errors import StoreError
from orchestrator.store.documents.audit_document import TrailDocument
from orchestrator.store.documents.document import Digest, Document, NewerSchemaError, TaskName
from orchestrator.store.documents.rollout import (
    Aliases,
    BrokenRolloutError,
    Change,
    ChangeKind,
    Earlier,
    Pending,
    Rollout,
    VersionRef,
)

__all__ = ["read_rollout"]

_ADVICE = "restore it from a copy, or promote a version of the task: what serves by MLflow counts then"
_VersionKey = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
_Version = Annotated[int, Field(ge=1)]
_Text = Annotated[str, StringConstraints(max_length=2000)]


class _Aliases(Document):
    versions: dict[Annotated[str, StringConstraints(max_length=256)], _Version]
    share: Annotated[float, Field(gt=0, lt=1)] | None


class _VersionRef(Document):
    digest: Digest | None
    published_s: float


class _Change(Document):
    kind: ChangeKind
    by: _Text
    host: _Text
    time_s: float
    reason: _Text
    change_id: _Text


class _Earlier(Document):
    until_s: float
    aliases: _Aliases
    change_id: _Text


class _Pending(Document):
    version: _Version
    digest: Digest | None
    champion: _Version | None
    request: _Change

    def to_pending(self) -> Pending:
        return Pending(**{**dict(self), "request": Change(**dict(self.request))})


class _Rule(Document):
    artifact: Digest
    rule: Digest


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    task: TaskName
    model_ms: int
    generation: int = Field(ge=1)
    aliases: _Aliases
    mirrored: _Aliases
    versions: dict[_VersionKey, _VersionRef]
    change: _Change
    earlier: list[_Earlier]
    pending: _Pending | None = None
    trail: TrailDocument = TrailDocument()
    rules: tuple[_Rule, ...] = ()
    # Earlier versions did not write it.
    champion_s: float | None = None


def read_rollout(content: bytes, where: str) -> Rollout:
    """The rollout in an object's content.

    Raises:
        BrokenRolloutError: It is not one; lists all problems.
        NewerSchemaError: It is of a later version of this program.
    """
    try:
        return _read(content, where)
    except NewerSchemaError:
        raise
    except StoreError as error:
        problems = error.problems
    raise BrokenRolloutError(problems)


def _read(content: bytes, where: str) -> Rollout:
    found = _Document.read(content, where, _ADVICE)
    rollout = Rollout(
        task=found.task,
        model_ms=found.model_ms,
        generation=found.generation,
        aliases=_read_aliases(found.aliases),
        mirrored=_read_aliases(found.mirrored),
        versions={int(version): VersionRef(**dict(ref)) for version, ref in found.versions.items()},
        change=Change(**dict(found.change)),
        earlier=tuple(
            Earlier(until_s=one.until_s, aliases=_read_aliases(one.aliases), change_id=one.change_id)
            for one in found.earlier
        ),
        rules={one.artifact: one.rule for one in found.rules},
        pending=None if found.pending is None else found.pending.to_pending(),
        trail=found.trail.to_trail(),
        champion_s=_champion_s(found),
    )
    if missing := set(rollout.aliases.versions.values()) - set(rollout.versions):
        raise StoreError(f"{where}: versions {sorted(missing)} have an alias and no digest; {_ADVICE}")
    return rollout


def _read_aliases(found: _Aliases) -> Aliases:
    return Aliases(versions=dict(found.versions), share=found.share)


def _champion_s(found: _Document) -> float | None:
    """When the champion began to serve; of a rollout of an earlier version, if its last change tells."""
    if "champion_s" not in found.model_fields_set and found.change.kind in ("promote", "rollback"):
        return found.change.time_s
    return found.champion_s
