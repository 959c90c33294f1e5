"""Verdict of a run on each task: whether it serves, what it needs if it does not, or why it failed."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.errors import RegistryError
from orchestrator.registry.advice import Advice
from orchestrator.registry.versions import RETIRED, TaskInfo, VersionInfo
from orchestrator.train.ledger.status import MEASURED

__all__ = ["Decisions", "Published", "Verdict", "VerdictKind", "failed_verdicts", "find_verdicts"]

# What a version that was withheld needs is told only where no version of its task serves.
VerdictKind = Literal["serves", "needs-data", "needs-backbone", "withheld", "failed", "unknown"]
_logger = logging.getLogger(__name__)


class Decisions(Protocol):
    """The parts of a ``Registry`` that tell what the gate decided."""

    def tasks(self) -> list[TaskInfo]:
        """All tasks."""
        ...

    def gated_versions(self) -> Mapping[tuple[str, str], VersionInfo]:
        """The versions that went through the gate, by task and digest."""
        ...


@dataclass(frozen=True, kw_only=True)
class Published:
    """An artifact that a run published, or found in the store.

    Attributes:
        task: Name of the task.
        digest: Digest of the artifact; None if the store did not tell it.
        metrics: Metrics of its card; empty if they are not known.
        is_new: Whether this run published it.
    """

    task: str
    digest: str | None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    is_new: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on a task.

    Attributes:
        task: Name of the task.
        metrics: Held-out accuracy, its interval and the linear probe's accuracy, as far as they are known.
        is_new: Whether this run published it; False for an artifact that was in the store already.
        kind: The verdict; ``unknown`` while the gate has not decided on the artifact.
        serves: Whether the task has a champion; None where that is not known.
        version: Version that has the artifact; None if it is not known.
        champion: Version that serves; None if there is none.
        reason: Reason of the gate's decision on the artifact; of a failed task its cause.
        gate: What the artifact was withheld by, see ``GateDecision``.
        advice: What to do about that, as a sentence without a full stop; of a linear probe that serves in
            place of a tuned prompt, why.
        num_images: Images to add, where the task needs data.
        split: Where to add them: ``training`` or ``held-out``.
        of_class: Class that needs them most.
        digest: Digest of the artifact.
    """

    task: str
    metrics: Mapping[str, Any]
    is_new: bool
    kind: VerdictKind = "unknown"
    serves: bool | None = None
    version: int | None = None
    champion: int | None = None
    reason: str | None = None
    gate: str | None = None
    advice: str | None = None
    num_images: int | None = None
    split: str | None = None
    of_class: str | None = None
    digest: str | None = None


def failed_verdicts(failed: Mapping[str, str]) -> tuple[Verdict, ...]:
    """The verdicts on tasks that failed, given the cause of each."""
    return tuple(
        Verdict(task=task, metrics={}, is_new=True, kind="failed", reason=cause)
        for task, cause in failed.items()
    )


def find_verdicts(registry: Decisions, published: Iterable[Published]) -> tuple[Verdict, ...]:
    """The verdict on each artifact, as the registry knows it now; unknown where it cannot be asked."""
    published = tuple(published)
    if not published:
        return ()
    try:
        gated, infos = registry.gated_versions(), {info.task: info for info in registry.tasks()}
    except RegistryError as error:
        _logger.info("which tasks serve cannot be found out: %s", error)
        gated, infos = {}, {}
    return tuple(
        _judge(one, infos.get(one.task), gated.get((one.task, one.digest or ""))) for one in published
    )


def _judge(published: Published, info: TaskInfo | None, gated: VersionInfo | None) -> Verdict:
    """The verdict on an artifact, given the newest version of it that went through the gate."""
    own = _with_alias(info, published.digest) or gated
    metrics = own.metrics if own is not None and not published.metrics else published.metrics
    known = {name: metrics.get(name) for name in MEASURED}
    if info is None or own is None or gated is None:
        return Verdict(task=published.task, metrics=known, is_new=published.is_new, digest=published.digest)
    advice = own.advice or Advice(kind="withheld")
    return Verdict(
        task=published.task,
        metrics=known,
        is_new=published.is_new,
        # A version that was withheld by a gate and promoted by hand since serves like any other.
        kind="serves" if info.champion is not None else _unserved(advice),
        serves=info.champion is not None,
        version=own.version,
        champion=None if info.champion is None else info.champion.version,
        reason=_reason(own, info),
        gate=advice.gate,
        advice=advice.text or None,
        num_images=advice.num_images,
        split=advice.split,
        of_class=advice.of_class,
        digest=published.digest,
    )


def _unserved(advice: Advice) -> VerdictKind:
    """A version that the gate promoted, of a task that was rolled back to nothing since, is withheld."""
    return "withheld" if advice.kind == "serves" else advice.kind


def _reason(own: VersionInfo, info: TaskInfo) -> str | None:
    """Reason of the gate's decision; before it, that the version was taken out of service since."""
    if not info.is_retired or info.aliases[RETIRED] != own.version:
        return own.gate_reason
    back = f"The task is retired; `ship promote {info.task} {own.version}` brings it back with this version"
    return f"{back}; {own.gate_reason}" if own.gate_reason else f"{back}."


def _with_alias(info: TaskInfo | None, digest: str | None) -> VersionInfo | None:
    """The champion or challenger with this digest, if there is one."""
    found = () if info is None or digest is None else (info.champion, info.challenger)
    return next((version for version in found if version is not None and version.digest == digest), None)
