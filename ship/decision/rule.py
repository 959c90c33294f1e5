"""The decision rule of a task: from class scores and distance to a label, or to ``unsure``.

Shapes: B pictures, C classes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from ship.errors import ConfigError
from ship.settings.checks import check_settings, number

__all__ = ["UNSURE", "Costs", "Decision", "DecisionRule", "share_beside"]

UNSURE = "unsure"
# A rule without frequencies is written as before there were any.
_SCHEMA, _SCHEMA_WITH_FREQUENCIES = 1, 2
_share = number("from 0 to 1", lambda v: 0.0 <= v <= 1.0)
_part = number("above 0, up to 1", lambda v: 0.0 < v <= 1.0)
# Numbers of JSON may be whole and of any length; these stay what arithmetic takes.
_LARGEST = 1e9
_cost = number(f"from 0 to {_LARGEST:g}", lambda v: 0.0 <= v <= _LARGEST)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of wrong decisions, and of having a person look (C. K. Chow, 1970).

    Attributes:
        good: Label of the parts that are in order.
        escape: Cost of answering ``good`` for a part that is not.
        false_reject: Cost of answering another label for a good part.
        unsure: Cost of answering ``unsure``; None if that is not to be weighed.
    """

    good: str
    escape: float = 1.0
    false_reject: float = 1.0
    unsure: float | None = None

    def __post_init__(self) -> None:
        """Check every cost. Raises ``ConfigError``."""
        name = (lambda found: isinstance(found, str) and bool(found), "a label")
        check_settings(self, {"good": name, "escape": _cost, "false_reject": _cost})
        if self.unsure is not None:
            check_settings(self, {"unsure": _cost})


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision about one picture.

    Attributes:
        label: The label, or ``unsure``.
        probabilities: Calibrated probability of each class, in the order of the scores; see
            ``DecisionRule.probabilities``.
        because: Reason of an ``unsure``: ``far`` from all training images, ``several`` classes with a
            promised recall are possible, ``confidence`` is below the least, or an error would ``cost`` more
            than a look.
    """

    label: str
    probabilities: tuple[float, ...]
    because: Literal["far", "several", "confidence", "cost"] | None = None


@dataclass(frozen=True, kw_only=True)
class DecisionRule:
    """A decision rule; by default the likeliest class of uncalibrated scores.

    Attributes:
        temperature: Divides the scores before the softmax (C. Guo et al., ICML 2017).
        thresholds: Of classes with a promised recall: least share at which the class is possible, see
            ``share_beside``; the likeliest class always is. A picture for which one is possible is answered
            with that label or ``unsure``, and no other.
        recalls: The recall that was promised, of the same classes.
        costs: Costs of errors, if they decide between good and not good.
        min_confidence: Least probability of a label that is answered.
        max_distance: Distance from the training images beyond which a picture is ``far``; None for no limit.
        expected: Figures of the rule on held-out images that it was not chosen on, for people.
        frequencies: Weight of each label, of sum 1, by which probabilities become those of the pictures
            whose costs are weighed: its share among them over the share that the scores have in them. Of
            scores of equally frequent classes that is its share. None where both shares are the same, and
            for labels that are not all named.
    """

    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    recalls: Mapping[str, float] = field(default_factory=dict)
    costs: Costs | None = None
    min_confidence: float = 0.0
    max_distance: float | None = None
    expected: Mapping[str, Any] = field(default_factory=dict)
    frequencies: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: Lists all that are out of range.
        """
        shares = (
            lambda found: isinstance(found, Mapping) and all(map(_share[0], found.values())),
            f"a mapping of labels, each with {_share[1]}",
        )
        distance = number(f"from 0 to {_LARGEST:g}, or null", lambda v: 0.0 <= v <= _LARGEST)
        check_settings(
            self,
            {
                "temperature": number("from 0.001 to 1000", lambda v: 1e-3 <= v <= 1e3),
                "thresholds": shares,
                "recalls": shares,
                "min_confidence": _share,
                "max_distance": (lambda v: v is None or distance[0](v), distance[1]),
                "frequencies": (_are_frequencies, f"null, or a mapping of labels, each with {_part[1]}"),
            },
        )

    def decide(
        self, labels: Sequence[str], logits_C: Sequence[float], distance: float | None = None
    ) -> Decision:
        """Decide about a picture.

        Args:
            labels: Class names, in the order of the scores.
            logits_C: Class scores.
            distance: Distance from the training images; None where it is not known.
        """
        p_C = self.probabilities(logits_C)
        if self.max_distance is not None and distance is not None and distance > self.max_distance:
            return Decision(label=UNSURE, probabilities=p_C, because="far")
        top = max(range(len(p_C)), key=logits_C.__getitem__)
        possible = self._possible(labels, logits_C, top) if self.thresholds else []
        if len(possible) > 1:
            return Decision(label=UNSURE, probabilities=p_C, because="several")
        chosen = possible[0] if possible else top
        if not possible and self.costs is not None and self.costs.good in labels:
            natural_C = self.natural_probabilities(labels, logits_C)
            weighed = _weigh(p_C, natural_C, labels.index(self.costs.good), self.costs)
            if weighed is None:
                return Decision(label=UNSURE, probabilities=p_C, because="cost")
            chosen = weighed
        if p_C[chosen] < self.min_confidence:
            return Decision(label=UNSURE, probabilities=p_C, because="confidence")
        return Decision(label=labels[chosen], probabilities=p_C)

    def decide_all(
        self,
        labels: Sequence[str],
        logits_BC: Sequence[Sequence[float]],
        distances_B: Sequence[float] | None = None,
    ) -> list[Decision]:
        """Decide about each of some pictures; see ``decide``."""
        distances = [None] * len(logits_BC) if distances_B is None else distances_B
        return [
            self.decide(labels, logits_C, distance)
            for logits_C, distance in zip(logits_BC, distances, strict=True)
        ]

    def _possible(self, labels: Sequence[str], logits_C: Sequence[float], top: int) -> list[int]:
        """Places of the classes with a promised recall that a picture may show."""
        return [
            place
            for place, label in enumerate(labels)
            if label in self.thresholds
            and (
                place == top
                or share_beside(logits_C[place] - logits_C[top], self.temperature) >= self.thresholds[label]
            )
        ]

    def probabilities(self, logits_C: Sequence[float]) -> tuple[float, ...]:
        """Calibrated probabilities of classes that are as frequent as the scores have them.

        These are equally frequent in scores of a balanced task, and else as in the training images.
        """
        return _softmax(logits_C, self.temperature)

    def natural_probabilities(self, labels: Sequence[str], logits_C: Sequence[float]) -> tuple[float, ...]:
        """Calibrated probabilities of classes that are as frequent as in the held-out images."""
        log_C = self.log_frequencies(labels)
        if log_C is None:
            return self.probabilities(logits_C)
        scaled_C = [logit / self.temperature + log for logit, log in zip(logits_C, log_C, strict=True)]
        return _softmax(scaled_C, 1.0)

    def log_frequencies(self, labels: Sequence[str]) -> list[float] | None:
        """Log of each class's frequency; None where there are none, or not of every class."""
        known = self.frequencies
        if known is None or not all(label in known for label in labels):
            return None
        return [math.log(known[label]) for label in labels]

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain values; of schema 2 only where there are ``frequencies``."""
        values: dict[str, Any] = {
            "schema": _SCHEMA,
            "temperature": self.temperature,
            "thresholds": dict(self.thresholds),
            "recalls": dict(self.recalls),
            "costs": None if self.costs is None else dict(vars(self.costs)),
            "min_confidence": self.min_confidence,
            "max_distance": self.max_distance,
            "expected": dict(self.expected),
        }
        if self.frequencies is None:
            return values
        return {**values, "schema": _SCHEMA_WITH_FREQUENCIES, "frequencies": dict(self.frequencies)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The rule of ``to_dict``; anything unexpected is refused.

        Raises:
            ConfigError: It is no rule.
        """
        _check_keys(values, {"schema", *cls.__dataclass_fields__})
        given = {name: value for name, value in values.items() if name != "schema"}
        costs, expected = given.pop("costs"), given.pop("expected")
        if not isinstance(expected, Mapping):
            raise ConfigError("decision rule: expected: expected a mapping")
        try:
            json.dumps(expected, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"decision rule: expected: expected finite figures: {error}") from error
        try:
            return cls(**given, expected=expected, costs=None if costs is None else Costs(**costs))
        except TypeError as error:
            raise ConfigError(f"decision rule: costs: {error}") from error


def share_beside(margin: float, temperature: float) -> float:
    """The probability of a class beside that of the likeliest one alone, from 0 to 1/2.

    It orders pictures as the margin does, at any temperature, so that a limit on it keeps its promise however
    the temperature was fitted. For two classes it is the class's calibrated probability.

    Args:
        margin: Score of the class less the highest score, at most 0.
        temperature: Divides it.
    """
    odds = math.exp(margin / temperature)
    return odds / (1.0 + odds)


def _check_keys(values: object, known: set[str]) -> None:
    """Whether plain values have the keys of a rule, those of its schema. Raises ``ConfigError``."""
    schema = values.get("schema") if isinstance(values, Mapping) else None
    expected = known if schema == _SCHEMA_WITH_FREQUENCIES else known - {"frequencies"}
    has_known_schema = schema in (_SCHEMA, _SCHEMA_WITH_FREQUENCIES)
    if not isinstance(values, Mapping) or not has_known_schema or set(values) != expected:
        found = ", ".join(sorted(map(str, values))) if isinstance(values, Mapping) else repr(values)
        raise ConfigError(
            f"decision rule: expected exactly {', '.join(sorted(expected))}, with schema {_SCHEMA}, or "
            f"{_SCHEMA_WITH_FREQUENCIES} with frequencies, found {found[:300]}, with schema {schema!r:.40}"
        )
    if schema == _SCHEMA_WITH_FREQUENCIES and values["frequencies"] is None:
        raise ConfigError(f"decision rule: frequencies: expected a mapping in schema {schema}, found null")


def _are_frequencies(found: object) -> bool:
    return found is None or (
        isinstance(found, Mapping) and len(found) > 0 and all(map(_part[0], found.values()))
    )


def _softmax(logits_C: Sequence[float], temperature: float) -> tuple[float, ...]:
    highest = max(logits_C)
    odds = [math.exp((logit - highest) / temperature) for logit in logits_C]
    total = math.fsum(odds)
    return tuple(odd / total for odd in odds)


def _weigh(p_C: Sequence[float], natural_C: Sequence[float], good: int, costs: Costs) -> int | None:
    """Place of the class whose answer costs least; None where a look of a person costs less.

    Costs are weighed by ``natural_C``. Which class other than good is named costs nothing: it is the
    likeliest one by ``p_C``, as the label is.
    """
    by_chance = [(1.0 - natural_C[good]) * costs.escape, natural_C[good] * costs.false_reject]
    if costs.unsure is not None and costs.unsure < min(by_chance):
        return None
    if by_chance[0] <= by_chance[1] or len(p_C) == 1:
        return good
    return max((place for place in range(len(p_C)) if place != good), key=p_C.__getitem__)
