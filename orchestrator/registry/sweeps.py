"""Sweep of one setting of a decision rule over a version's held-out pictures: each step with its figures.

Every step is the rule that would be stored, chosen as ``ship threshold`` chooses it. The figures are those of
the rule on the pictures that it was chosen on, so that a picture may be seen to cross the line; the figures
that are stored with a rule are cross-fitted, and a little less bright.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from orchestrator.registry.thresholds import Standing, Thresholds, Wishes
from ship.artifact.held_out import HeldOut
from ship.decision.expectation import expected_figures, mean_cost
from ship.decision.mistakes import find_good_label
from ship.decision.rule import Costs, Decision, DecisionRule
from ship.errors import ConfigError

__all__ = ["KNOBS", "Knob", "KnobKind", "figures_of", "sweep"]

KnobKind = Literal["recall", "confidence", "escape"]
KNOBS: tuple[KnobKind, ...] = ("recall", "confidence", "escape")
# Scores in a document: of more, evenly spaced pictures are taken.
MAX_SCORES, MAX_MOVERS = 40_000, 60
_RECALLS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)
_CONFIDENCES = (0.0, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
_ESCAPES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A setting of a decision rule that is swept.

    Attributes:
        kind: ``recall`` that is promised for a label, least ``confidence`` of a label, or cost of an
            ``escape`` beside a false reject's.
        label: Label of the recall; None of the others.
    """

    kind: KnobKind
    label: str | None = None

    def wishes(self, value: float, before: DecisionRule) -> Wishes:
        """What ``ship threshold`` would be told for a value."""
        match self.kind:
            case "recall":
                return Wishes(recalls={str(self.label): value})
            case "confidence":
                return Wishes(min_confidence=value)
            case "escape":
                known = before.costs
                others = {"false_reject": known.false_reject if known else 1.0}
                if known is not None and known.unsure is not None:
                    others["unsure"] = known.unsure
                return Wishes(costs={"escape": value, **others})

    def value(self, rule: DecisionRule) -> float | None:
        """The value that a rule has; None of costs that it does not weigh."""
        match self.kind:
            case "recall":
                return rule.recalls.get(str(self.label), 0.0)
            case "confidence":
                return rule.min_confidence
            case "escape":
                return None if rule.costs is None else rule.costs.escape

    def values(self, rule: DecisionRule) -> list[float]:
        """The values to try, rising, the rule's own among them."""
        tried = {"recall": _RECALLS, "confidence": _CONFIDENCES, "escape": _ESCAPES}[self.kind]
        own = self.value(rule)
        return sorted({*tried, *([] if own is None else [own])})


def sweep(thresholds: Thresholds, standing: Standing, knob: Knob) -> dict[str, Any]:
    """Steps of a knob, with the scores that they are decided on, as plain values.

    Args:
        thresholds: Chooses the rules.
        standing: The rule as it stands.
        knob: What is moved; everything else stays as it is.

    Returns:
        ``labels``, and by picture ``places`` in the held-out list, ``truth``, ``logits`` and ``distances``;
        ``now``, the standing rule, and ``steps``, each a ``value`` with its ``rule`` and ``figures``, which
        are counts on these pictures; ``movers``, the pictures whose decision is not the same at all steps;
        ``limit``, why no higher value can be had.

    Raises:
        ConfigError: The label is unknown, or no part is known to be good.
        RegistryError: The artifact keeps no held-out answers.
        StoreError: They, or the rule, cannot be read.
    """
    held_out = thresholds.held_out(standing)
    if knob.kind == "recall" and knob.label not in held_out.labels:
        raise ConfigError(f"unknown label {knob.label!r}: the task has {', '.join(held_out.labels)[:200]}")
    before = standing.rule or standing.own
    rules, limit = _choose_all(thresholds, standing, knob, held_out, before)
    places = _spread(len(held_out), max(1, MAX_SCORES // len(held_out.labels)))
    shown = _take(held_out, places)
    good = _good(before, held_out)
    costs = [_costs(rule, good) for _, rule in rules]
    decided = [rule.decide_all(shown.labels, shown.logits_BC, shown.distances_B) for _, rule in rules]
    now = before.decide_all(shown.labels, shown.logits_BC, shown.distances_B)
    return {
        "knob": {"kind": knob.kind, "label": knob.label, "value": knob.value(before)},
        "good": good,
        **_scores(shown, places),
        "now": _step(shown, knob.value(before), before, now, good, _costs(before, good)),
        "steps": [
            _step(shown, value, rule, decisions, good, cost)
            for (value, rule), decisions, cost in zip(rules, decided, costs, strict=True)
        ],
        "movers": [places[place] for place in _movers(decided)],
        "limit": limit,
    }


def _scores(shown: HeldOut, places: Sequence[int]) -> dict[str, Any]:
    """The pictures that are shown, a column for each of their values."""
    return {
        "labels": list(shown.labels),
        "num_pictures": shown.num_images,
        "places": list(places),
        "truth": list(shown.labels_B),
        "logits": [list(logits_C) for logits_C in shown.logits_BC],
        "distances": None if shown.distances_B is None else list(shown.distances_B),
    }


def _choose_all(
    thresholds: Thresholds, standing: Standing, knob: Knob, held_out: HeldOut, before: DecisionRule
) -> tuple[list[tuple[float, DecisionRule]], str | None]:
    """The rule of each value up to the highest that can be promised, and why that is the highest."""
    found: list[tuple[float, DecisionRule]] = []
    values = knob.values(before)
    wishes = (knob.wishes(value, before) for value in values)
    try:
        for rule in thresholds.choose_each(standing, wishes, held_out):
            found.append((values[len(found)], rule))
    except ConfigError as error:
        if not found:
            raise
        return found, str(error)
    return found, None


def figures_of(
    shown: HeldOut, decisions: Sequence[Decision], good: str | None, costs: Costs | None
) -> dict[str, Any]:
    """Counts of decisions, each ``[number, of]``, and the mean cost; the console's script counts the same."""
    figures = expected_figures(shown.labels, shown.labels_B, decisions, good)

    def counts(figure: Any) -> list[int]:
        return [figure["num"], figure["of"]]

    by_label = {
        name: {label: counts(figure) for label, figure in figures[name].items()}
        for name in ("recall", "caught")
    }
    singles = {name: counts(figures[name]) for name in ("accuracy", "unsure", "far")}
    about_good = {
        name: counts(figures[name]) if name in figures else None for name in ("false_rejects", "escapes")
    }
    cost = None if costs is None else mean_cost(shown.labels, shown.labels_B, decisions, costs)
    return {**singles, **about_good, **by_label, "cost": cost}


def _step(
    shown: HeldOut,
    value: float | None,
    rule: DecisionRule,
    decisions: Sequence[Decision],
    good: str | None,
    costs: Costs | None,
) -> dict[str, Any]:
    settings = {name: found for name, found in rule.to_dict().items() if name not in ("schema", "expected")}
    weighed = None if costs is None else dict(vars(costs))
    return {
        "value": value,
        "rule": settings,
        "weighed": weighed,
        "figures": figures_of(shown, decisions, good, costs),
    }


def _good(rule: DecisionRule, held_out: HeldOut) -> str | None:
    return rule.costs.good if rule.costs else find_good_label(held_out.labels)


def _costs(rule: DecisionRule, good: str | None) -> Costs | None:
    """The costs that pictures are counted at: the rule's, or one for each error where it weighs none."""
    return rule.costs or (None if good is None else Costs(good=good, unsure=0.2))


def _movers(decided: Sequence[Sequence[Decision]]) -> list[int]:
    """Pictures whose decision changes from step to step, those that change first in front."""
    found = []
    for place, decisions in enumerate(zip(*decided, strict=True)):
        said = [(decision.label, decision.because is None) for decision in decisions]
        changed = next((step for step, one in enumerate(said) if one != said[0]), None)
        if changed is not None:
            found.append((changed, place))
    return [place for _, place in sorted(found)[:MAX_MOVERS]]


def _spread(number: int, most: int) -> list[int]:
    kept = min(number, most)
    return [place * number // kept for place in range(kept)]


def _take(held_out: HeldOut, places: Sequence[int]) -> HeldOut:
    if len(places) == len(held_out):
        return held_out
    distances = held_out.distances_B
    return replace(
        held_out,
        paths=tuple(held_out.paths[place] for place in places),
        digests=tuple(held_out.digests[place] for place in places),
        labels_B=tuple(held_out.labels_B[place] for place in places),
        logits_BC=tuple(held_out.logits_BC[place] for place in places),
        probe_logits_BC=None,
        distances_B=None if distances is None else tuple(distances[place] for place in places),
        thumbnails={},
    )
