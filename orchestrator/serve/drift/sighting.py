"""What ingresses tell the watch for drift, and it tells them: plain values, as those of ``engine_api``."""

from dataclasses import dataclass

from ship.evaluation.drift import Observation

__all__ = ["Drift", "Sighting"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """An answer, as far as the watch for drift looks at it.

    Attributes:
        task: Name of the task.
        digest: Digest of the artifact that answered.
        rule: Digest of the decision rule; None for the artifact's own.
        observed: What is watched of it.
    """

    task: str
    digest: str
    rule: str | None
    observed: Observation


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Drift of a task, for metrics.

    Attributes:
        task: Name of the task.
        is_alarming: Whether there is an alarm that nobody has acknowledged.
        evidence: Evidence of drift as a share of what raises an alarm.
        num_seen: Pictures that the watch has seen.
        unsure: Share of the last pictures that were answered ``unsure``.
        far: Share of them beyond the held-out pictures' ninetieth percentile of distance, if it is measured.
    """

    task: str
    is_alarming: bool
    evidence: float
    num_seen: int
    unsure: float | None
    far: float | None
