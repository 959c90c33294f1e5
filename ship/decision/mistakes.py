"""Wrong answers on labelled images, in the order in which a person looks at them. Loads without torch.

Shapes: B images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ship.decision.rule import DecisionRule

__all__ = ["Mistake", "find_good_label", "find_mistakes", "find_narrow"]

# Right answers with little lead that are shown beside the mistakes, and have thumbnails.
_NUM_NARROW = 16
# Names of the class of parts that are in order, as data sets and plants call it.
_GOOD = {"good", "ok", "okay", "normal", "pass", "passed"}


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image whose likeliest class is not its label.

    Attributes:
        place: Place of the image.
        truth: Place of its label among the classes.
        answer: Place of the likeliest class.
        probability: Probability of the answer.
        truth_probability: Probability of the label.
        is_false_accept: Whether the answer is the good class: a defect that would pass.
    """

    place: int
    truth: int
    answer: int
    probability: float
    truth_probability: float
    is_false_accept: bool


def find_good_label(labels: Sequence[str]) -> str | None:
    """The label whose name says that a part is in order; None if none does, or several do."""
    found = [label for label in labels if label.casefold() in _GOOD]
    return found[0] if len(found) == 1 else None


def find_mistakes(
    labels_B: Sequence[int],
    logits_BC: Sequence[Sequence[float]],
    good: int | None = None,
    temperature: float = 1.0,
) -> list[Mistake]:
    """Wrong answers: false accepts first, then by falling probability of the answer.

    Args:
        labels_B: Label of each image, a place among the classes.
        logits_BC: Class scores.
        good: Place of the class of parts that are in order, if there is one.
        temperature: Divides the scores before the softmax.
    """
    calibrated = DecisionRule(temperature=temperature)
    found = []
    for place, (truth, logits_C) in enumerate(zip(labels_B, logits_BC, strict=True)):
        answer = max(range(len(logits_C)), key=logits_C.__getitem__)
        if answer != truth:
            p_C = calibrated.probabilities(logits_C)
            found.append(
                Mistake(
                    place=place,
                    truth=truth,
                    answer=answer,
                    probability=p_C[answer],
                    truth_probability=p_C[truth],
                    is_false_accept=answer == good,
                )
            )
    return sorted(found, key=lambda one: (not one.is_false_accept, -one.probability, one.place))


def find_narrow(
    labels_B: Sequence[int], logits_BC: Sequence[Sequence[float]], limit: int = _NUM_NARROW
) -> list[int]:
    """Places of the right answers with the least lead over the next class, at most ``limit`` of them."""
    leads = []
    for place, (truth, logits_C) in enumerate(zip(labels_B, logits_BC, strict=True)):
        ranked = sorted(range(len(logits_C)), key=logits_C.__getitem__, reverse=True)
        if ranked[0] == truth and len(ranked) > 1:
            leads.append((logits_C[ranked[0]] - logits_C[ranked[1]], place))
    return [place for _, place in sorted(leads)[:limit]]
