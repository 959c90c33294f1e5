"""The promotion gate: a pure decision whether a new version replaces the champion, with its reason.

A version is withheld if it is not told from guessing, as none is by images of one class, if it lost a class
of the champion, or if it is *significantly* worse than the linear probe or than a champion: one image more or
less decides nothing. It is compared with the best champion that was measured on the same images, whatever
either was tuned with, and not only with the last one, so that balanced accuracy cannot slide down in steps.
"""

from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.manifest.floors import Floors
from orchestrator.registry.advice import Gate
from orchestrator.registry.guessing import MOST_BY_CHANCE, chance_of_guess, is_told_from_guessing
from orchestrator.registry.lost_classes import NONE_LOST, LostClasses, find_lost
from orchestrator.registry.measurement import Beside, Measurement

__all__ = ["NO_FLOORS", "GateDecision", "Missed", "decide", "missed_floors"]

NO_FLOORS = Floors()


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The gate's decision on a new version.

    Attributes:
        promote: True to serve it from now on.
        reason: Sentence with the numbers.
        gate: What it was withheld by; None if it was not.
        rule: Digest of the decision rule that it decides by from now on; None leaves that as it is.
        lost: Classes of the champion that it was withheld for.
    """

    promote: bool
    reason: str
    gate: Gate | None = None
    rule: str | None = None
    lost: LostClasses = NONE_LOST

    @property
    def is_refusal(self) -> bool:
        """Whether something speaks against the version: not where it cannot be judged, or came late."""
        return self.gate not in (None, "unmeasured", "older")

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
        best: The best of the champions before it on the candidate's images, if one was better than it.
        floors: The least that the version has to reach, as the task's manifest says.
    """
    accuracy, probe = candidate.accuracy, candidate.probe_accuracy
    if accuracy is None or probe is None:
        missing = "accuracy" if accuracy is None else "probe accuracy"
        return _withhold("unmeasured", f"Its {missing} is not known, so it cannot be judged.")
    if (doubt := _doubt_that_it_guesses(candidate)) is not None:
        return _withhold("guessing", doubt)
    if missed := missed_floors(candidate, floors):
        said = "; ".join(map(str, missed))
        return _withhold("floors", f"It does not reach the task's floors: {said}.")
    beside_probe = candidate.beside_probe()
    assert beside_probe is not None, "both accuracies are known"
    said = _describe_beside_probe(beside_probe)
    if beside_probe.difference.is_worse:
        return _withhold("probe", f"{said} on the same images ({beside_probe.difference}).")
    if champion is None:
        return GateDecision(promote=True, reason=f"{said}, and there is no champion yet.")
    return _against_champions(beside_probe, candidate, champion, best)


def _describe_beside_probe(beside: Beside) -> str:
    """The share that was tested beside the linear probe's; the accuracies too, where they are others."""
    relation = "is below" if beside.difference.is_worse else _relation(beside, better="beats")
    accuracies = [f" (accuracy {share:.4f})" for share in (beside.own_accuracy, beside.other_accuracy)]
    own, other = ("", "") if beside.is_accuracy else accuracies
    share = f"{beside.share.capitalize()} {beside.own:.4f}{own}"
    return f"{share} {relation} the linear probe's {beside.other:.4f}{other}"


def _relation(beside: Beside, better: str) -> str:
    """The relation of a version to one that it is not significantly worse than."""
    if beside.own == beside.other:
        return "ties with"
    return better if beside.own > beside.other else "is no worse than"


def _doubt_that_it_guesses(candidate: Measurement) -> str | None:
    """Why it may be guessing, if it may; versions whose recalls are not on record pass."""
    if len(candidate.recalls) == 1:
        return _doubt_of_one_class(candidate)
    low, chance, found = candidate.balanced_low, candidate.chance, candidate.balanced_accuracy
    if low is None or chance is None or is_told_from_guessing(candidate.recalls):
        return None
    if low > chance:
        return (
            f"Its balanced accuracy {found:.4f} on {candidate.num_images} held-out images is not told from "
            f"guessing: answers that look at no picture reach it in up to "
            f"{chance_of_guess(candidate.recalls):.1%} of cases, expected at most {MOST_BY_CHANCE:.1%}. It "
            f"needs more images of the rarest class, which has {min(all_ for _, all_ in candidate.recalls)}."
        )
    return (
        f"Its balanced accuracy {found:.4f} on {candidate.num_images} held-out images (95% interval from "
        f"{max(0.0, low):.4f}) is not told from guessing, which gives {chance:.4f} for "
        f"{len(candidate.recalls)} classes: it needs more images, or another backbone or image size."
    )


def _doubt_of_one_class(candidate: Measurement) -> str:
    """Why it may be guessing where it was measured on images of one class."""
    name = repr(candidate.classes[0]) if candidate.classes else "a class"
    missing = ", ".join(map(repr, candidate.unmeasured))[:300] or "the others"
    number = candidate.recalls[0][1]
    return (
        f"It has held-out images of one class only ({name}: {number}), expected of two at least: whatever "
        f"always answers {name} gets all of them right. Add some of {missing}."
    )


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A floor that a version does not reach.

    Attributes:
        name: ``accuracy``, ``accuracy_low`` or ``balanced_accuracy``; of a recall, its class.
        is_recall: Whether it is the recall of a class.
        found: The version's; None if it is not known.
        least: The floor.
    """

    name: str
    found: float | None
    least: float
    is_recall: bool = False

    def __str__(self) -> str:
        """The floor in words."""
        name = f"recall of {self.name}" if self.is_recall else self.name
        found = "is not known" if self.found is None else f"{self.found:.4f}"
        return f"{name} {found}, expected at least {self.least:.4f}"


def missed_floors(candidate: Measurement, floors: Floors) -> list[Missed]:
    """Floors that a version does not reach, or that cannot be told."""
    shares = {
        "accuracy": candidate.accuracy,
        "accuracy_low": candidate.accuracy_low,
        "balanced_accuracy": candidate.balanced_accuracy,
    }
    wanted = [Missed(name=name, found=found, least=getattr(floors, name)) for name, found in shares.items()]
    wanted += [
        Missed(name=name, found=candidate.recall(name), least=least, is_recall=True)
        for name, least in floors.recall.items()
    ]
    return [one for one in wanted if one.least > 0.0 and (one.found is None or one.found < one.least)]


def _against_champions(
    beside_probe: Beside, candidate: Measurement, champion: Measurement, best: Measurement | None
) -> GateDecision:
    said, against = _describe_beside_probe(beside_probe), candidate.beside(champion)
    if against is None:
        return _withhold(
            "unmeasured",
            f"{said}, but today's champion has no accuracy on record to compare with; promote by hand.",
        )
    if lost := find_lost(candidate, champion):
        return replace(_withhold("classes", f"{said}, but it {lost}."), lost=lost)
    note = "" if against.is_paired else _note_on_images(candidate, champion)
    today = f"today's champion ({_describe_other(against, beside_probe)})"
    if against.difference.is_worse:
        return _withhold("champion", f"{said}, but is worse than {today}.{note}")
    against_best = None if best is None else candidate.beside(best)
    if against_best is not None and against_best.difference.is_worse:
        return _withhold(
            "best",
            f"{said}, and is no worse than {today}, but is worse than an earlier champion on the same "
            f"images ({_describe_other(against_best, beside_probe)}).",
        )
    relation = _relation(against, better="is better than")
    return GateDecision(promote=True, reason=f"{said}, and {relation} {today}.{note}")


def _note_on_images(candidate: Measurement, champion: Measurement) -> str:
    """What a comparison with the champion rests on, where that is not the same images."""
    is_same = candidate.is_on_images_of(champion)
    if is_same is None:
        return " The champion is of other data; whether its held-out images are the same is not on record."
    return "" if is_same else " The champion was measured on other data."


def _describe_other(beside: Beside, said: Beside) -> str:
    """The share of a champion, beside the version's own where another one was said, and the test."""
    if (beside.share, beside.own) == (said.share, said.own):
        share = f"{beside.other:.4f}"
    else:
        share = f"{beside.share} {beside.other:.4f} beside {beside.own:.4f}"
    accuracy = "" if beside.is_accuracy else f", accuracy {beside.other_accuracy:.4f}"
    return f"{share}{accuracy}; {beside.difference}"


def _withhold(gate: Gate, reason: str) -> GateDecision:
    return GateDecision(promote=False, reason=reason, gate=gate)
