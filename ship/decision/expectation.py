"""Figures of a decision rule: what it answered for pictures of known classes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ship.decision.rule import Costs, Decision
from ship.evaluation.accuracy import wilson_interval

__all__ = ["expected_figures", "mean_cost"]

# The figures of as many classes are kept, of the lowest recalls.
_MAX_CLASSES = 1000


def expected_figures(
    labels: Sequence[str], truth: Sequence[int], decisions: Sequence[Decision], good: str | None
) -> dict[str, Any]:
    """Shares, each with its 95% Wilson interval and counts, as plain values.

    Args:
        labels: Class names.
        truth: Class of each picture.
        decisions: Decision about each.
        good: Label of the parts that are in order, if there is one.

    Returns:
        Shares of the ``accuracy`` of what is answered with a label, of ``unsure`` and ``far`` pictures, of
        ``false_rejects`` (good ones that are answered otherwise) and ``escapes`` (others that are answered
        good), and by label of ``recall`` (pictures that are answered with it) and ``caught`` (or ``unsure``).
    """
    # A class may have the name `unsure`.
    answers = [None if decision.because else decision.label for decision in decisions]
    counts = Counter((labels[place], answer) for place, answer in zip(truth, answers, strict=True))
    of_class = Counter(labels[place] for place in truth)
    num_unsure = sum(counts[label, None] for label in of_class)
    num_right = sum(counts[label, label] for label in of_class)
    num_far = sum(decision.because == "far" for decision in decisions)
    recalls = {label: _share(counts[label, label], num) for label, num in of_class.items()}
    lowest = sorted(recalls, key=lambda label: counts[label, label] / of_class[label])[:_MAX_CLASSES]
    figures: dict[str, Any] = {
        "accuracy": _share(num_right, len(decisions) - num_unsure),
        "unsure": _share(num_unsure, len(decisions)),
        "far": _share(num_far, len(decisions)),
        "recall": {label: recalls[label] for label in lowest},
        "caught": {
            label: _share(counts[label, label] + counts[label, None], of_class[label]) for label in lowest
        },
    }
    if good is not None:
        num_good = of_class[good]
        num_kept = counts[good, good] + counts[good, None]
        num_escaped = sum(counts[label, good] for label in of_class if label != good)
        figures["false_rejects"] = _share(num_good - num_kept, num_good)
        figures["escapes"] = _share(num_escaped, len(decisions) - num_good)
    return figures


def mean_cost(
    labels: Sequence[str], truth: Sequence[int], decisions: Sequence[Decision], costs: Costs
) -> float:
    """Mean cost of a picture, with ``unsure`` at its cost, or at none where that is not weighed."""
    total = 0.0
    for place, decision in zip(truth, decisions, strict=True):
        if decision.because:
            total += costs.unsure or 0.0
        elif labels[place] == costs.good:
            total += costs.false_reject * (decision.label != costs.good)
        else:
            total += costs.escape * (decision.label == costs.good)
    return total / max(1, len(decisions))


def _share(num: int, of: int) -> dict[str, float | int | None]:
    low, high = wilson_interval(num, of)
    return {"share": num / of if of else None, "low": low, "high": high, "num": num, "of": of}
