"""A version of a task: as the catalog names it, and as it is in memory, ready to answer."""

from dataclasses import dataclass, field, replace

from ship.decision.distance import DistanceModel
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError
from ship.runtime.slots import Slot
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["Key", "PromptRef", "ServedVersion"]

# Task and digest. Not the digest alone: a catalog that names one artifact under two tasks is wrong for one.
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class PromptRef:
    """One version of a task, wherever its prompt is.

    Attributes:
        task: Its name.
        version: In the registry.
        digest: Digest of the artifact.
        rule: Digest of the decision rule; None for the artifact's own.
        backbone: Fingerprint of the backbone; None if the catalog does not tell it.
    """

    task: str
    version: int
    digest: str
    rule: str | None = None
    backbone: str | None = None

    @property
    def key(self) -> Key:
        """Identity of the prompt: two versions of one digest are one prompt."""
        return self.task, self.digest


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """One version of a task, ready to answer.

    Attributes:
        task: Its name.
        version: In the registry.
        digest: Digest of the artifact.
        labels: In the order of the scores.
        slot: The prompt on the device.
        view: View that images for it are decoded by.
        shadow_version: Version to be asked the same, once this one has answered; None for none.
        rule: Decision rule.
        rule_digest: Digest of the rule; None for the artifact's own.
        own_rule: Decision rule of the artifact.
        distance: Distances of pictures from the training images; None of an artifact without.
    """

    task: str
    version: int
    digest: str
    labels: tuple[str, ...]
    slot: Slot
    view: View = DEFAULT_VIEW
    shadow_version: int | None = None
    rule: DecisionRule = field(default_factory=DecisionRule)
    rule_digest: str | None = None
    own_rule: DecisionRule = field(default_factory=DecisionRule)
    distance: DistanceModel | None = None

    def ruled(self, digest: str | None, rule: DecisionRule | None) -> "ServedVersion":
        """The same prompt with another decision rule; None for the artifact's own.

        Raises:
            ArtifactError: The rule names a class that the artifact does not have.
        """
        if rule is None:
            return replace(self, rule=self.own_rule, rule_digest=None)
        good = [] if rule.costs is None else [rule.costs.good]
        if unknown := sorted({*rule.thresholds, *rule.recalls, *good} - set(self.labels)):
            raise ArtifactError(
                f"decision rule {str(digest)[:12]} names classes that version {self.version} of task "
                f"{self.task!r} does not have: {', '.join(unknown)[:200]}"
            )
        return replace(self, rule=rule, rule_digest=digest)

    def named(self, version: int, shadow_version: int | None = None) -> "ServedVersion":
        """The same prompt under another number, or with a shadow."""
        if (self.version, self.shadow_version) == (version, shadow_version):
            return self
        return replace(self, version=version, shadow_version=shadow_version)
