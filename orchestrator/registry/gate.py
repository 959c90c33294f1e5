"""The promotion gate: a pure decision whether a new version replaces the champion, with its reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["GateDecision", "decide"]


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The gate's decision on a new version.

    Attributes:
        promote: True to serve it from now on.
        reason: Sentence with the numbers.
    """

    promote: bool
    reason: str

    @property
    def alias(self) -> Literal["champion", "challenger"]:
        """Alias of the version after the decision."""
        return "champion" if self.promote else "challenger"


def decide(
    candidate: Mapping[str, float], champion: Mapping[str, float] | None, *, same_data: bool = True
) -> GateDecision:
    """Decide on a new version.

    It is promoted if it is no worse than the linear probe on the same split, and no worse than today's
    champion beyond the confidence interval. A number that is missing, or not a number, never promotes.

    Args:
        candidate: Metrics of the new version: ``accuracy`` and ``probe_accuracy``, from 0 to 1.
        champion: Metrics of today's champion: ``accuracy`` and ``accuracy_low``, the lower end of its 95%
            interval. None if the task has no champion.
        same_data: Whether both were measured on the same images; said in the reason if not.
    """
    accuracy, probe = _number(candidate, "accuracy"), _number(candidate, "probe_accuracy")
    if accuracy is None or probe is None:
        missing = "accuracy" if accuracy is None else "probe accuracy"
        return GateDecision(promote=False, reason=f"Its {missing} is not known, so it cannot be judged.")
    if accuracy < probe:
        return GateDecision(
            promote=False,
            reason=f"Accuracy {accuracy:.4f} is below the linear probe's {probe:.4f} on the same images.",
        )
    relation = "ties with" if accuracy == probe else "beats"
    beats_probe = f"Accuracy {accuracy:.4f} {relation} the linear probe's {probe:.4f}"
    if champion is None:
        return GateDecision(promote=True, reason=f"{beats_probe}, and there is no champion yet.")
    return _against_champion(beats_probe, accuracy, champion, same_data)


def _against_champion(
    beats_probe: str, accuracy: float, champion: Mapping[str, float], same_data: bool
) -> GateDecision:
    best, low = _number(champion, "accuracy"), _number(champion, "accuracy_low")
    if best is None or low is None:
        return GateDecision(
            promote=False,
            reason=f"{beats_probe}, but today's champion has no accuracy on record to compare with; "
            "promote by hand.",
        )
    note = "" if same_data else " The champion was measured on other data."
    interval = f"today's champion ({best:.4f}, 95% interval from {low:.4f})"
    if accuracy < low:
        return GateDecision(promote=False, reason=f"{beats_probe}, but is worse than {interval}.{note}")
    relation = (
        "is no worse than" if accuracy < best else "ties with" if accuracy == best else "is better than"
    )
    return GateDecision(promote=True, reason=f"{beats_probe}, and {relation} {interval}.{note}")


def _number(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
