"""Verdict on a version that went through the gate, and what its task needs where it was withheld.

A pure function of the gate's decision and of what the artifact records. Whether more pictures would help is
told by the interval, where there are too few to measure on, and by the linear probe's learning curve, where
there are too few to learn from; if neither promises it, the frozen features do not tell the classes apart.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from orchestrator.manifest.floors import Floors
from orchestrator.registry.advice import Advice
from orchestrator.registry.gate import GateDecision, Missed, missed_floors
from orchestrator.registry.guessing import is_told_from_guessing
from orchestrator.registry.lost_classes import LostClasses
from orchestrator.registry.measurement import Measurement
from ship.evaluation.learning_curve import LearningCurve

__all__ = ["TuningFacts", "advise"]

# As many times the held-out images are worth collecting; beyond that the version hardly beats guessing.
_MOST_HELD_OUT = 8.0
# Training images of a class below which nothing can be said against the backbone.
_FEW_OF_A_CLASS = 20
# A share of correct answers on training images that is so close to guessing has learnt nothing.
_HARDLY = 0.1


@dataclass(frozen=True, kw_only=True)
class TuningFacts:
    """What an artifact records of its tuning, beside the measurement.

    Attributes:
        curve: Learning curve of the linear probe; None where it is not known.
        num_train: Training images; 0 if that is not known.
        train_accuracy: Training accuracy of the last epoch.
        replaced: Of a linear probe that took a tuned prompt's place: why, without a full stop; else empty.
    """

    curve: LearningCurve | None = None
    num_train: int = 0
    train_accuracy: float | None = None
    replaced: str = ""

    @classmethod
    def read(cls, card: Mapping[str, Any], record: Mapping[str, Any]) -> Self:
        """The facts in an artifact's card and record; what is missing or odd there is left out."""
        metrics = card.get("metrics", {})
        try:
            points = [(int(n), float(accuracy)) for n, accuracy in record.get("learning_curve") or ()]
            curve = LearningCurve.fit(points, int(metrics.get("num_test", 0)))
            history = record.get("history") or [{}]
            accuracy = history[-1].get("train_accuracy")
            return cls(
                curve=curve,
                num_train=int(metrics.get("num_train", 0)),
                train_accuracy=None if accuracy is None else float(accuracy),
                replaced=_describe_replaced(record.get("instead_of")),
            )
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError):
            return cls()


def _describe_replaced(instead_of: Mapping[str, Any] | None) -> str:
    if not instead_of:
        return ""
    kind, balanced = instead_of["settings"]["kind"], instead_of.get("balanced_accuracy")
    shares = "" if balanced is None else f"balanced accuracy {float(balanced):.4f}, "
    shares += f"accuracy {float(instead_of['accuracy']):.4f}"
    return (
        f"it is the linear probe, for the tuned {kind} prompt is significantly worse ({shares}): "
        f"{instead_of['cause']}"
    )


def advise(
    decision: GateDecision, candidate: Measurement, facts: TuningFacts, floors: Floors | None = None
) -> Advice:
    """The verdict on a version.

    Args:
        decision: The gate's decision on it.
        candidate: Its measurement.
        facts: What else its artifact records.
        floors: Floors of the task.
    """
    if decision.promote:
        return Advice(kind="serves", text=facts.replaced)
    if decision.gate == "guessing":
        advice = _beyond_guessing(candidate, facts)
    elif decision.gate == "floors":
        needs = [
            _to_reach(missed, candidate, facts) for missed in missed_floors(candidate, floors or Floors())
        ]
        # The hardest to meet: another backbone, then the most images.
        advice = max(needs, key=_hardness, default=Advice(kind="withheld"))
    elif decision.gate == "classes":
        advice = _put_back(decision.lost)
    else:
        advice = Advice(kind="withheld")
    return replace(advice, gate=decision.gate)


def _hardness(need: Advice) -> tuple[bool, int]:
    return need.kind == "needs-backbone", need.num_images or 0


def _beyond_guessing(candidate: Measurement, facts: TuningFacts) -> Advice:
    """What would tell a version from guessing."""
    if len(candidate.recalls) == 1:
        return _none_of(next(iter(candidate.unmeasured), None))
    if (factor := _factor_beyond_chance(candidate)) is not None:
        return _more_held_out(candidate, factor, "to tell its accuracy from guessing")
    chance = candidate.chance or 0.0
    wanted = _least_accuracy(candidate)
    return _more_training(candidate, facts, wanted, max(chance, candidate.balanced_accuracy or 0.0))


def _to_reach(missed: Missed, candidate: Measurement, facts: TuningFacts) -> Advice:
    """What would lift a version over a floor."""
    if missed.found is None and not missed.is_recall:
        return Advice(kind="withheld", text=f"its {missed.name} is not on record: tune the task again")
    if missed.found is None:
        return _none_of(missed.name)
    if missed.name == "accuracy_low" and not missed.is_recall:
        accuracy = candidate.accuracy or 0.0
        if accuracy > missed.least and (factor := _factor_beyond(accuracy, candidate, missed.least)):
            return _more_held_out(candidate, factor, f"for an interval from {missed.least:g}")
        return _more_training(candidate, facts, missed.least, accuracy)
    of_class = missed.name if missed.is_recall else None
    return _more_training(candidate, facts, missed.least, missed.found, of_class)


def _none_of(name: str | None) -> Advice:
    """Held-out images of a class that has none."""
    text = f"add held-out images of {'another class' if name is None else repr(name)}: there are none"
    return Advice(kind="needs-data", text=text, num_images=1, split="held-out", of_class=name)


def _put_back(lost: LostClasses) -> Advice:
    """The images of classes that the champion knows, or was measured on."""
    return Advice(
        kind="needs-data",
        text=lost.remedy,
        num_images=None if lost.unknown else len(lost.unmeasured),
        split="training" if lost.unknown else "held-out",
        of_class=(*lost.unknown, *lost.unmeasured)[0],
    )


def _more_held_out(candidate: Measurement, factor: float, purpose: str) -> Advice:
    counts = dict(zip(candidate.classes, (all_ for _, all_ in candidate.recalls), strict=False))
    rarest = min(counts, key=lambda name: counts[name], default=None)
    number = max(1, math.ceil((factor - 1.0) * candidate.num_images))
    most = "" if rarest is None else f", above all of {rarest!r}, which has {counts[rarest]}"
    text = f"add about {number} held-out images{most}, {purpose}"
    return Advice(kind="needs-data", text=text, num_images=number, split="held-out", of_class=rarest)


def _more_training(
    candidate: Measurement, facts: TuningFacts, wanted: float, found: float, of_class: str | None = None
) -> Advice:
    """More training images, if the learning curve promises that share; else another backbone."""
    worst = of_class or _worst_class(candidate)
    most = "" if worst is None else f", above all of {worst!r}"
    num_classes, curve = max(1, len(candidate.recalls)), facts.curve
    hardly = max(found, 1.0 / num_classes + _HARDLY)
    if facts.train_accuracy is not None and facts.train_accuracy < min(wanted, hardly):
        return _other_backbone(f"even training images are answered with {facts.train_accuracy:.3f} only")
    if curve is not None and (number := curve.through(found).images_for(wanted)) is not None:
        more = max(1, number - curve.num_images)
        reached = f"by its learning curve it reaches {wanted:.3f} with {number}"
        return _training(f"add about {more} training images{most}: {reached}", more, worst)
    missing = _FEW_OF_A_CLASS * num_classes - facts.num_train
    if missing > 0:
        text = f"add about {missing} training images{most}: there are too few to say more"
        return _training(text, missing, worst)
    if curve is None:
        return _other_backbone("more images are not known to help")
    doubled = curve.through(found).accuracy(2 * curve.num_images)
    return _other_backbone(f"twice the training images would give about {doubled:.3f}")


def _training(text: str, number: int, of_class: str | None) -> Advice:
    return Advice(kind="needs-data", text=text, num_images=number, split="training", of_class=of_class)


def _other_backbone(why: str) -> Advice:
    text = f"use another backbone, a larger image_size, or a closer view of the part: {why}"
    return Advice(kind="needs-backbone", text=text)


def _worst_class(candidate: Measurement) -> str | None:
    shares = [
        (found / all_, name)
        for (found, all_), name in zip(candidate.recalls, candidate.classes, strict=False)
    ]
    return min(shares, default=(0.0, None))[1]


def _factor_beyond_chance(candidate: Measurement) -> float | None:
    """Times the held-out images that tell the same recalls from guessing; None if that is too many."""

    def clears(factor: float) -> bool:
        counts = [(factor * found, factor * all_) for found, all_ in candidate.recalls]
        return is_told_from_guessing(counts)

    return _least_factor(clears)


def _factor_beyond(accuracy: float, candidate: Measurement, least: float) -> float | None:
    from ship.evaluation.accuracy import wilson_interval

    def clears(factor: float) -> bool:
        number = math.ceil(factor * max(1, candidate.num_images))
        return wilson_interval(math.floor(accuracy * number), number)[0] >= least

    return _least_factor(clears)


def _least_factor(clears: Callable[[float], bool]) -> float | None:
    steps = (1.0 + 0.125 * step for step in range(1, round((_MOST_HELD_OUT - 1.0) / 0.125) + 1))
    return next((factor for factor in steps if clears(factor)), None)


def _least_accuracy(candidate: Measurement) -> float:
    """Balanced accuracy that the same held-out images would tell from guessing."""
    chance = candidate.chance or 0.0
    for percent in range(math.floor(100 * chance), 100):
        share = percent / 100
        if is_told_from_guessing([(share * all_, all_) for _, all_ in candidate.recalls]):
            return share
    return 1.0
