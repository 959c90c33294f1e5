"""Decision rules of a task's versions: which one decides, and the choice of another one on held-out answers.

A new rule is an object of the store; the task's rollout names it from then on, by one conditional write, and
the catalog follows at once.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch

from orchestrator.errors import RegistryError, StoreError
from orchestrator.registry.catalog_writer import follow_rollout
from orchestrator.registry.mirror import VersionFinder
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import CHAMPION
from orchestrator.store.documents.rollout import Rollout
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import CARD, RECORD, PromptCard
from ship.artifact.held_out import HeldOut
from ship.artifact.scores import ScoreOrigin
from ship.decision.choosing import choose_rule
from ship.decision.limits import reached_rate
from ship.decision.mistakes import find_good_label
from ship.decision.rule import Costs, DecisionRule
from ship.errors import ConfigError

__all__ = ["Standing", "Thresholds", "Wishes", "choice_of", "set_rule"]

_logger = logging.getLogger(__name__)
_FALSE_ALARMS = 0.01


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The decision rule of a version, as it stands.

    Attributes:
        task: Name of the task.
        version: The version.
        artifact: Digest of its artifact.
        labels: Class names.
        own: The artifact's own rule.
        scores: What the artifact's scores are of; None where its record does not tell.
        digest: Digest of the rule that took its place; None if none did.
        stored: That rule, with its origin; None of one that cannot be read.
    """

    task: str
    version: int
    artifact: str
    labels: tuple[str, ...]
    own: DecisionRule
    scores: ScoreOrigin | None = None
    digest: str | None = None
    stored: StoredRule | None = None

    @property
    def rule(self) -> DecisionRule | None:
        """The rule that decides; None if it cannot be read."""
        if self.digest is None:
            return self.own
        return None if self.stored is None else self.stored.rule


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a new rule is to keep to; what is not named stays as it is.

    Attributes:
        recalls: Recall to promise by label; 0 takes the promise back.
        costs: Costs of an ``escape``, a ``false_reject`` and of ``unsure``, by these names; empty for those
            of the rule before.
        good: Label of the parts that are in order.
        min_confidence: Least probability of a label that is answered.
        false_alarm_rate: Highest share of pictures of the task's own kind that are ``far``.
        from_own: Begin with the artifact's own rule in place of the one that decides.
    """

    recalls: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    good: str | None = None
    min_confidence: float | None = None
    false_alarm_rate: float | None = None
    from_own: bool = False


class Thresholds:
    """The decision rules of one store and its registry.

    Methods raise ``RegistryError`` if there is no such task or version, ``StoreError`` if the store fails.

    Args:
        registry: Registry of versions.
        store: Store of rules.
        rollouts: Changes the rollouts, as the author of new rules.
        clock: Current time, seconds since the epoch.
    """

    def __init__(
        self,
        registry: Registry,
        store: PromptStore,
        rollouts: Rollouts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry, self._store, self._rollouts = registry, store, rollouts
        self._clock = clock

    def standing(self, task: str, version: int | None = None, *, may_be_broken: bool = False) -> Standing:
        """The rule of a version.

        Args:
            task: Name of the task.
            version: The version; None for the champion.
            may_be_broken: Take a rule that cannot be read, which may be replaced all the same.
        """
        rollout = self._rollouts.read(task)
        number = rollout.version(CHAMPION) if version is None else version
        if number is None:
            raise RegistryError(
                f"task {task!r} has no champion, and no rule decides; name a version with --version: "
                f"{self._registry.listed_versions(task)}"
            )
        known = rollout.versions.get(number)
        artifact = known.digest if known else self._registry.version(task, number).digest
        if artifact is None:
            raise RegistryError(
                f"version {number} of task {task!r} names no artifact of ours, so no rule decides on it; "
                "name one that `ship tune` registered"
            )
        files = self._store.fetch(artifact)
        card = PromptCard.from_json(files[CARD])
        digest = rollout.rules.get(artifact)
        return Standing(
            task=task,
            version=number,
            artifact=artifact,
            labels=card.labels,
            own=card.decision,
            scores=ScoreOrigin.read(card, files.get(RECORD, b"")),
            digest=digest,
            stored=None if digest is None else self._read(task, number, digest, may_be_broken),
        )

    def choose(self, standing: Standing, wishes: Wishes) -> DecisionRule:
        """Choose another rule on the held-out answers of the version's artifact.

        Raises:
            ConfigError: A label is unknown, or something cannot be promised; says what can.
            RegistryError: The artifact keeps no held-out answers.
        """
        held_out = self.held_out(standing)
        return choose_rule(
            held_out.labels,
            held_out.logits_BC,
            held_out.labels_B,
            held_out.distances_B,
            digests=held_out.digests,
            **_choice(standing, wishes),
        )

    def choose_each(
        self, standing: Standing, wishes: Iterable[Wishes], held_out: HeldOut
    ) -> Iterator[DecisionRule]:
        """The rules that ``choose`` would choose, without their figures, which take ten times as long.

        Args:
            standing: The rule as it stands.
            wishes: What each rule is to keep to.
            held_out: The held-out answers of the version.

        Raises:
            ConfigError: As ``choose``, at the first of which something cannot be promised.
        """
        # Read once: each of a hundred thousand rows is a tuple of numbers.
        logits_BC = torch.tensor(held_out.logits_BC, dtype=torch.float64)
        temperature = None
        for wish in wishes:
            rule = choose_rule(
                held_out.labels,
                logits_BC,
                held_out.labels_B,
                held_out.distances_B,
                digests=held_out.digests,
                **_choice(standing, wish),
                temperature=temperature,
                cross_fits=False,
            )
            temperature = rule.temperature
            yield rule

    def held_out(self, standing: Standing) -> HeldOut:
        """The held-out answers that rules of a version are chosen on.

        Raises:
            RegistryError: The artifact keeps none.
        """
        held_out = self._store.fetch_held_out(standing.artifact)
        if held_out is None or not len(held_out):
            raise RegistryError(
                f"version {standing.version} of task {standing.task!r} keeps no answers about held-out "
                "images to choose a rule on: it was imported, or tuned by an earlier ship. Tune it again, "
                "with another setting in the manifest such as its seed"
            )
        return held_out

    def set(self, standing: Standing, rule: DecisionRule | None) -> Standing:
        """Let the version decide by another rule from now on; None for its artifact's own.

        Raises:
            RegistryError: Its rule was changed meanwhile.
        """
        stored, digest = None, None
        if rule is not None:
            author = self._rollouts.writer.author
            stored = StoredRule(
                task=standing.task,
                artifact=standing.artifact,
                rule=rule,
                by=author.by,
                host=author.host,
                time_s=self._clock(),
                reason=author.reason,
            )
            digest = self._store.rules.write(stored)
        rollout = set_rule(
            self._rollouts,
            standing.task,
            standing.version,
            standing.artifact,
            digest,
            instead_of=standing.digest,
        )
        try:
            follow_rollout(self._store, rollout)
        except StoreError as error:
            _logger.warning("the rule is set; the endpoint follows in half a minute: %s", error)
        return replace(standing, digest=digest, stored=stored)

    def _read(self, task: str, version: int, digest: str, may_be_broken: bool) -> StoredRule | None:
        try:
            return self._store.rules.read(digest)
        except StoreError as error:
            if may_be_broken:
                return None
            raise StoreError(
                f"the rule of version {version} of task {task!r} cannot be read: {error}; `ship threshold "
                f"{task} --version {version} --reset` goes back to the artifact's own"
            ) from error


def _choice(standing: Standing, wishes: Wishes) -> dict[str, Any]:
    before = standing.own if wishes.from_own or standing.rule is None else standing.rule
    return choice_of(before, wishes, own=standing.own, scores=standing.scores, labels=standing.labels)


def choice_of(
    before: DecisionRule,
    wishes: Wishes,
    *,
    own: DecisionRule,
    scores: ScoreOrigin | None,
    labels: Sequence[str],
) -> dict[str, Any]:
    """What ``choose_rule`` is asked for: what is not named stays as it is.

    Args:
        before: The rule whose place the new one takes.
        wishes: What the new one is to keep to.
        own: The own rule of the artifact that it is chosen for.
        scores: What that artifact's scores are of; None where its record does not tell.
        labels: Its class names.

    Raises:
        ConfigError: Costs are named, and it is not known which parts are good.
    """
    good = wishes.good or (before.costs.good if before.costs else find_good_label(labels))
    costs = before.costs
    if wishes.costs:
        if good is None:
            raise ConfigError(
                "costs need to know which parts are good: name their label with --good, one of "
                f"{', '.join(labels)[:200]}"
            )
        costs = Costs(good=good, **wishes.costs)
    elif costs and wishes.good:
        costs = replace(costs, good=wishes.good)
    recalls = {**before.recalls, **wishes.recalls}
    least = before.min_confidence if wishes.min_confidence is None else wishes.min_confidence
    return {
        "recalls": {label: recall for label, recall in recalls.items() if recall != 0.0},
        "costs": costs,
        "min_confidence": least,
        "false_alarm_rate": wishes.false_alarm_rate or _asked_rate(before),
        "good": good,
        # Without a record, the artifact's own rule tells: it then has frequencies for balanced scores alone.
        **vars(scores or ScoreOrigin(balanced_scores=own.frequencies is not None)),
    }


def set_rule(
    rollouts: Rollouts, task: str, version: int, artifact: str, rule: str | None, *, instead_of: str | None
) -> Rollout:
    """Let a version decide by another rule from now on; it takes the rule along when it is promoted.

    Args:
        rollouts: Changes the rollouts.
        task: Name of the task.
        version: The version.
        artifact: Digest of the version's artifact, which the rule was chosen for.
        rule: Digest of the rule, which is in the store; None for the artifact's own rule.
        instead_of: Digest of the rule that it was chosen in place of; None for the artifact's own.

    Returns:
        The rollout after the change.

    Raises:
        RegistryError: There is no such task or version, or its rule was changed meanwhile.
    """

    def decide(rollout: Rollout, ref: VersionFinder) -> Rollout:
        found = rollout.rules.get(artifact)
        if ref(version).digest != artifact or found not in (instead_of, rule):
            raise RegistryError(
                f"version {version} of task {task!r} was changed meanwhile; look at its rule with "
                f"`ship threshold {task} --version {version}`, and repeat the change"
            )
        return rollout.with_rule(artifact, rule)

    writer = rollouts.writer
    return writer.write(task, writer.mirror.new_change("threshold"), decide)[1]


def _asked_rate(rule: DecisionRule) -> float:
    """The rate that a rule's limit of the distance was chosen for, as far as it is known.

    Rules of an earlier version tell the rate that was within reach of their held-out images, which of few is
    far above what was asked for. Where the default would have led to the same, it is what was asked for.
    """
    far = rule.expected.get("far")
    told = far if isinstance(far, Mapping) else {}
    asked, reached = told.get("asked_rate"), told.get("false_alarm_rate")
    if _is_rate(asked):
        return asked
    num = rule.expected.get("num_images")
    by_default = reached_rate(num, _FALSE_ALARMS) if isinstance(num, int) and num > 0 else None
    return reached if _is_rate(reached) and reached != by_default else _FALSE_ALARMS


def _is_rate(found: object) -> TypeGuard[float]:
    return isinstance(found, float) and 0.0 < found < 1.0
