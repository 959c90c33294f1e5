"""Choice of a decision rule from held-out images: temperature, thresholds and the limit of the distance.

What is promised holds for pictures that are drawn as the held-out ones were, one by one.

Shapes: B held-out images, C classes.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from ship.decision.calibration import fit_temperature
from ship.decision.expectation import expected_figures, mean_cost
from ship.decision.limits import conformal_rank, fewest_for, highest_for, reached_rate, tolerance_rank
from ship.decision.rule import Costs, Decision, DecisionRule, share_beside
from ship.decision.shares import find_contained, find_frequencies
from ship.errors import ConfigError
from ship.evaluation.accuracy import calibration_error
from ship.settings.checks import check_settings, number

__all__ = ["choose_rule"]

# Share of drawn tasks in which all promised recalls are kept.
_CONFIDENCE = 0.95
# More folds are closer to the rule that is chosen on all images; of many images, fewer are close enough.
_NUM_FOLDS, _FOLDS_OF_MANY, _MANY = 10, 5, 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scores:
    """Held-out images as a rule sees them, float64; see ``choose_rule``.

    Attributes:
        pictures_B: Number of the picture of its class that each image shows: copies have the same.
        are_copies_B: Whether an image is a copy of an earlier one. Promises rest on the others.
        contained_C: See ``find_contained``.
    """

    labels: tuple[str, ...]
    logits_BC: Tensor
    labels_B: Tensor
    distances_B: Tensor | None
    pictures_B: Tensor
    are_copies_B: Tensor
    contained_C: Tensor | None = None

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        logits_BC: Tensor | Sequence[Sequence[float]],
        labels_B: Tensor | Sequence[int],
        distances_B: Tensor | Sequence[float] | None,
        digests: Sequence[str] | None,
    ) -> Self:
        """Tensors of what ``choose_rule`` is given."""
        labels_B = torch.as_tensor(labels_B, dtype=torch.int64)
        pictures_B = _number_pictures(labels_B, digests)
        return cls(
            labels=tuple(labels),
            logits_BC=torch.as_tensor(logits_BC, dtype=torch.float64).reshape(-1, len(labels)),
            labels_B=labels_B,
            distances_B=None if distances_B is None else torch.as_tensor(distances_B, dtype=torch.float64),
            pictures_B=pictures_B,
            are_copies_B=pictures_B != torch.arange(len(pictures_B)),
        )

    @property
    def frequencies(self) -> dict[str, float] | None:
        """Those of the rule; None where the scores have the shares of these images in them."""
        if self.contained_C is None:
            return None
        return find_frequencies(self.labels, self.labels_B, self.contained_C)

    @property
    def num_distinct(self) -> int:
        """Number of images without copies."""
        return int((~self.are_copies_B).sum())

    def distinct_of(self, label: str) -> Tensor:
        """Mask of a class's images without copies."""
        return (self.labels_B == self.labels.index(label)) & ~self.are_copies_B

    def take(self, chosen_B: Tensor) -> "_Scores":
        """The images for which the mask is true; all copies of a picture, or none."""
        distances_B = None if self.distances_B is None else self.distances_B[chosen_B]
        return replace(
            self,
            logits_BC=self.logits_BC[chosen_B],
            labels_B=self.labels_B[chosen_B],
            distances_B=distances_B,
            pictures_B=self.pictures_B[chosen_B],
            are_copies_B=self.are_copies_B[chosen_B],
        )

    def decide(self, rule: DecisionRule) -> list[Decision]:
        """The rule's decision about each image."""
        distances = None if self.distances_B is None else self.distances_B.tolist()
        return rule.decide_all(self.labels, self.logits_BC.tolist(), distances)


@dataclass(frozen=True, kw_only=True)
class _Wishes:
    """What a rule is to keep to; see ``choose_rule``."""

    recalls: Mapping[str, float]
    costs: Costs | None
    min_confidence: float
    false_alarm_rate: float

    @property
    def doubt(self) -> float:
        """Probability that one promised recall is not kept: classes are drawn apart from each other."""
        return float(1.0 - _CONFIDENCE ** (1 / max(1, len(self.recalls))))


def choose_rule(
    labels: Sequence[str],
    logits_BC: Tensor | Sequence[Sequence[float]],
    labels_B: Tensor | Sequence[int],
    distances_B: Tensor | Sequence[float] | None = None,
    *,
    recalls: Mapping[str, float] | None = None,
    costs: Costs | None = None,
    min_confidence: float = 0.0,
    false_alarm_rate: float = 0.01,
    good: str | None = None,
    temperature: float | None = None,
    cross_fits: bool = True,
    balanced_scores: bool = False,
    train_counts: Sequence[int] | None = None,
    digests: Sequence[str] | None = None,
) -> DecisionRule:
    """Choose a rule on held-out images, with figures that are measured on images it was not chosen on.

    Args:
        labels: Class names, in the order of the scores.
        logits_BC: Class scores of the held-out images.
        labels_B: Their classes, 0..C-1.
        distances_B: Their distances from the training images; None where they are not known.
        recalls: Label to the least share of its pictures that are answered with it or ``unsure``. With 95%
            confidence all of these are kept for new pictures.
        costs: Costs of errors, if they are to decide between good and not good.
        min_confidence: Least probability of a label that is answered.
        false_alarm_rate: Highest expected share of new pictures of the task's own kind that are ``far``; with
            too few images for it, one in their number and one more.
        good: Label of the parts that are in order, for the figures; None for that of the costs.
        temperature: That of another rule that was chosen on the same images; None to fit it.
        cross_fits: Whether the figures are measured, which takes the time of ten choices.
        balanced_scores: Whether the scores are those of equally frequent classes, however many images each
            has: then the rule has the classes' ``frequencies``, and calibration is measured with them.
        train_counts: Training images of each class, whose shares other scores have in them; None where they
            are not known. If those of the held-out images differ, the rule has ``frequencies`` as well.
        digests: Digest of each image's pixels: images of a class with the same one are one picture, which
            counts once for promised recalls and for the limit of the distance. None if all differ.

    Raises:
        ConfigError: A label is unknown, a setting is out of range, or a recall cannot be promised with so few
            images; says which can, and how many images it takes.
    """
    wishes = _Wishes(
        recalls=recalls or {},
        costs=costs,
        min_confidence=min_confidence,
        false_alarm_rate=false_alarm_rate,
    )
    good = good if costs is None else costs.good
    held_out = _Scores.of(labels, logits_BC, labels_B, distances_B, digests)
    contained_C = find_contained(
        held_out.labels_B, len(labels), balanced_scores=balanced_scores, train_counts=train_counts
    )
    held_out = replace(held_out, contained_C=contained_C)
    _check(held_out, wishes, good)
    rule = _choose(held_out, wishes, temperature)
    return replace(rule, expected=_cross_fit(held_out, wishes, good)) if cross_fits else rule


def _number_pictures(labels_B: Tensor, digests: Sequence[str] | None) -> Tensor:
    """Place of the first image of each image's class that shows the same picture."""
    if digests is None:
        return torch.arange(len(labels_B))
    first: dict[tuple[str, int], int] = {}
    named = zip(digests, labels_B.tolist(), strict=True)
    places = [first.setdefault(name, place) for place, name in enumerate(named)]
    return torch.tensor(places, dtype=torch.int64)


def _check(held_out: _Scores, wishes: _Wishes, good: str | None) -> None:
    wanted = [*wishes.recalls, *([] if good is None else [good])]
    if unknown := [label for label in wanted if label not in held_out.labels]:
        raise ConfigError(
            f"unknown label {', '.join(map(repr, unknown))[:200]}: the task has "
            f"{', '.join(held_out.labels)[:200]}"
        )
    check_settings(wishes, {"false_alarm_rate": number("above 0, below 1", lambda v: 0.0 < v < 1.0)})
    problems = []
    for label, recall in wishes.recalls.items():
        if not 0.0 < recall < 1.0:
            problems.append(f"recall of {label!r}: expected a number above 0, below 1, got {recall!r}")
            continue
        num = int(held_out.distinct_of(label).sum())
        num_all = int((held_out.labels_B == held_out.labels.index(label)).sum())
        needed = fewest_for(1.0 - recall, wishes.doubt)
        if num < needed:
            best = f"{math.floor(1000 * highest_for(num, wishes.doubt)) / 1000:g}" if num else "none"
            copies = f", without {num_all - num} copies" if num < num_all else ""
            problems.append(
                f"a recall of {recall:g} for {label!r} cannot be promised with {num} held-out images of it"
                f"{copies}: that takes {needed}; with {num} at most {best} can be promised"
            )
    if problems:
        raise ConfigError(problems)


def _choose(held_out: _Scores, wishes: _Wishes, temperature: float | None = None) -> DecisionRule:
    frequencies = held_out.frequencies
    if temperature is None:
        log_prior_C = None if frequencies is None else _log(frequencies.values())
        temperature = fit_temperature(held_out.logits_BC, held_out.labels_B, log_prior_C)
    margins_BC = held_out.logits_BC - held_out.logits_BC.amax(dim=1, keepdim=True)
    thresholds = {}
    for label, recall in wishes.recalls.items():
        place = held_out.labels.index(label)
        margins_b = margins_BC[held_out.distinct_of(label), place].sort().values
        # In the folds of a cross-fit there may be too few: the lowest is then the closest to the promise.
        rank = max(1, tolerance_rank(len(margins_b), 1.0 - recall, wishes.doubt))
        limit = float(margins_b[rank - 1]) if len(margins_b) else -math.inf
        thresholds[label] = share_beside(limit, temperature)
    return DecisionRule(
        temperature=temperature,
        thresholds=thresholds,
        recalls=dict(wishes.recalls),
        costs=wishes.costs,
        min_confidence=wishes.min_confidence,
        max_distance=_max_distance(held_out, wishes.false_alarm_rate),
        frequencies=frequencies,
    )


def _log(shares: Iterable[float]) -> Tensor:
    return torch.tensor(list(shares), dtype=torch.float64).log()


def _max_distance(held_out: _Scores, rate: float) -> float | None:
    num = held_out.num_distinct
    if held_out.distances_B is None or not num:
        return None
    distances_b = held_out.distances_B[~held_out.are_copies_B]
    return float(distances_b.sort().values[conformal_rank(num, rate) - 1])


def _cross_fit(held_out: _Scores, wishes: _Wishes, good: str | None) -> dict[str, Any]:
    """Figures of rules that are each chosen on the other folds."""
    num = len(held_out.labels_B)
    rates = _far_rates(held_out, wishes.false_alarm_rate)
    if held_out.num_distinct < 2:
        return {"num_images": num, "cross_fitted": False, "far": rates}
    folds_B = _fold(held_out, _NUM_FOLDS if num < _MANY else _FOLDS_OF_MANY)
    before_BC, after_BC = held_out.logits_BC.clone(), held_out.logits_BC.clone()
    by_place: dict[int, Decision] = {}
    for fold in folds_B.unique().tolist():
        rule = _choose(held_out.take(folds_B != fold), wishes)
        places = (folds_B == fold).nonzero().squeeze(1)
        after_BC[places] /= rule.temperature
        if rule.frequencies is not None:
            # What is measured is how often an answer is right, and not how often it would be if the classes
            # were as frequent as the scores have them.
            before_BC[places] += _log(rule.frequencies.values())
            after_BC[places] += _log(rule.frequencies.values())
        by_place |= zip(places.tolist(), held_out.take(folds_B == fold).decide(rule), strict=True)
    decisions = [by_place[place] for place in range(num)]
    truth = held_out.labels_B.tolist()
    figures = expected_figures(held_out.labels, truth, decisions, good)
    figures["far"] |= rates
    if wishes.costs is not None:
        figures["cost"] = mean_cost(held_out.labels, truth, decisions, wishes.costs)
    return {
        "num_images": num,
        "cross_fitted": True,
        **figures,
        "calibration_error": _measure_both(calibration_error, held_out.labels_B, before_BC, after_BC),
        "cross_entropy": _measure_both(_cross_entropy, held_out.labels_B, before_BC, after_BC),
    }


def _far_rates(held_out: _Scores, rate: float) -> dict[str, float]:
    """The rate of far pictures that was asked for, which later versions inherit, and the one reached."""
    num = held_out.num_distinct
    if held_out.distances_B is None or not num:
        return {"asked_rate": rate}
    return {"asked_rate": rate, "false_alarm_rate": reached_rate(num, rate)}


def _fold(held_out: _Scores, most_folds: int) -> Tensor:
    """Fold of each image: every class is spread over the folds, in an order that a fixed seed draws.

    Copies of a picture are in one fold: no image is decided by a rule that was chosen on its copy.
    """
    generator = torch.Generator().manual_seed(0)
    drawn_B = torch.randperm(len(held_out.labels_B), generator=generator)
    order_B = drawn_B[held_out.labels_B[drawn_B].sort(stable=True).indices]
    order_b = order_B[~held_out.are_copies_B[order_B]]
    folds_B = torch.empty_like(held_out.labels_B)
    folds_B[order_b] = torch.arange(len(order_b)) % min(most_folds, len(order_b))
    return folds_B[held_out.pictures_B]


def _cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits_BC, labels_B))


def _measure_both(
    measure: Callable[[Tensor, Tensor], float], labels_B: Tensor, before_BC: Tensor, after_BC: Tensor
) -> dict[str, float]:
    found = [measure(logits_BC, labels_B) for logits_BC in (before_BC, after_BC)]
    return {"before": round(found[0], 6), "after": round(found[1], 6)}
