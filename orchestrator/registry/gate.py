"""The promotion gate: a pure decision whether a new version replaces the champion, with its reason.

A version is withheld if it is not told from guessing, or if it is *significantly* worse than the linear probe
or than a champion: one image more or less decides nothing. It is compared with the best champion that was
measured on the same images, and not only with the last one, so that accuracy cannot slide down step by step.
"""

from dataclasses import dataclass
from typing import Literal

from orchestrator.manifest.floors import Floors
from orchestrator.registry.measurement import Measurement

__all__ = ["NO_FLOORS", "SIGNIFICANT", "GateDecision", "decide"]

NO_FLOORS = Floors()
# Of a version that is no worse, one in twenty is withheld at most.
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The gate's decision on a new version.

    Attributes:
        promote: True to serve it from now on.
        reason: Sentence with the numbers.
        is_refusal: Whether something speaks against it; False too for one that cannot be judged.
    """

    promote: bool
    reason: str
    is_refusal: bool = False

    @property
    def alias(self) -> Literal["champion", "challenger"]:
        """Alias of the version after the decision."""
        return "champion" if self.promote else "challenger"


def decide(
    candidate: Measurement,
    champion: Measurement | None,
    best: Measurement | None = None,
    *,
    floors: Floors = NO_FLOORS,
) -> GateDecision:
    """Decide on a new version.

    Args:
        candidate: The new version.
        champion: Today's champion; None if the task has none.
        best: The best of the champions before it on the candidate's data, if one was better than it.
        floors: The least that the version has to reach, as the task's manifest says.
    """
    accuracy, probe = candidate.accuracy, candidate.probe_accuracy
    if accuracy is None or probe is None:
        missing = "accuracy" if accuracy is None else "probe accuracy"
        return GateDecision(promote=False, reason=f"Its {missing} is not known, so it cannot be judged.")
    if (doubt := _doubt_that_it_guesses(candidate)) is not None:
        return _withhold(doubt)
    if missed := _missed_floors(candidate, floors):
        return _withhold(f"It does not reach the task's floors: {'; '.join(missed)}.")
    against_probe = candidate.beside_probe()
    assert against_probe is not None, "both accuracies are known"
    if against_probe.p_worse < SIGNIFICANT:
        return _withhold(
            f"Accuracy {accuracy:.4f} is below the linear probe's {probe:.4f} on the same images "
            f"({against_probe})."
        )
    relation = "ties with" if accuracy == probe else "beats" if accuracy > probe else "is no worse than"
    beside_probe = f"Accuracy {accuracy:.4f} {relation} the linear probe's {probe:.4f}"
    if champion is None:
        return GateDecision(promote=True, reason=f"{beside_probe}, and there is no champion yet.")
    return _against_champions(beside_probe, candidate, champion, best)


def _doubt_that_it_guesses(candidate: Measurement) -> str | None:
    """Why it may be guessing, if it may."""
    low, chance, found = candidate.balanced_low, candidate.chance, candidate.balanced_accuracy
    if low is None or chance is None or low > chance or len(candidate.recalls) < 2:
        return None
    return (
        f"Its balanced accuracy {found:.4f} on {candidate.num_images} held-out images (95% interval from "
        f"{max(0.0, low):.4f}) is not told from guessing, which gives {chance:.4f} for "
        f"{len(candidate.recalls)} classes: it needs more images, or another backbone or image size."
    )


def _missed_floors(candidate: Measurement, floors: Floors) -> list[str]:
    """Floors that a version does not reach, or that cannot be told, in words."""
    found = {
        "accuracy": candidate.accuracy,
        "accuracy_low": candidate.accuracy_low,
        "balanced_accuracy": candidate.balanced_accuracy,
    }
    least = {name: getattr(floors, name) for name in found}
    found |= {f"recall of {name}": candidate.recall(name) for name in floors.recall}
    least |= {f"recall of {name}": share for name, share in floors.recall.items()}
    return [
        f"{name} {'is not known' if value is None else f'{value:.4f}'}, expected at least {least[name]:.4f}"
        for name, value in found.items()
        if least[name] > 0.0 and (value is None or value < least[name])
    ]


def _against_champions(
    beside_probe: str, candidate: Measurement, champion: Measurement, best: Measurement | None
) -> GateDecision:
    against = candidate.beside(champion)
    if against is None or champion.accuracy is None or candidate.accuracy is None:
        return GateDecision(
            promote=False,
            reason=f"{beside_probe}, but today's champion has no accuracy on record to compare with; promote "
            "by hand.",
        )
    note = "" if candidate.data == champion.data else " The champion was measured on other data."
    today = f"today's champion ({champion.accuracy:.4f}; {against})"
    if against.p_worse < SIGNIFICANT:
        return _withhold(f"{beside_probe}, but is worse than {today}.{note}")
    against_best = None if best is None else candidate.beside(best)
    if best is not None and against_best is not None and against_best.p_worse < SIGNIFICANT:
        return _withhold(
            f"{beside_probe}, and is no worse than {today}, but is worse than an earlier champion on the "
            f"same data ({best.accuracy:.4f}; {against_best})."
        )
    if candidate.accuracy == champion.accuracy:
        relation = "ties with"
    else:
        relation = "is better than" if candidate.accuracy > champion.accuracy else "is no worse than"
    return GateDecision(promote=True, reason=f"{beside_probe}, and {relation} {today}.{note}")


def _withhold(reason: str) -> GateDecision:
    return GateDecision(promote=False, reason=reason, is_refusal=True)
