"""Comparison of two versions on the same images: what the second one fixes and breaks, and whether it counts.

Pure: answers in, plain values out.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import RegistryError
from orchestrator.registry.evidence import Evidence
from orchestrator.registry.measurement import Measurement
from ship.artifact.held_out import HeldOut
from ship.evaluation.accuracy import wilson_interval
from ship.evaluation.paired import SIGNIFICANT

__all__ = ["compare_versions"]


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """An image that both versions answered."""

    path: str
    label: str
    first: str
    second: str
    places: tuple[int, int]


def compare_versions(
    task: str, first: Evidence, second: Evidence, *, is_same_source: bool = False
) -> dict[str, Any]:
    """Compare two versions on the images that both answered.

    An image is the same where path and label are, and the fingerprint of the data or of the held-out images,
    or the image's pixels.

    Args:
        task: Name of the task.
        first: Answers of one version.
        second: Answers of the other one.
        is_same_source: Whether both answered the images of one data set, so that equal paths are enough.

    Returns:
        Shares with counts and 95% Wilson intervals, balanced accuracies, the images that the second version
        has ``fixed`` and ``broken`` and those on which ``both_wrong``, each with its ``places`` in the
        held-out lists of the two, and the two-sided ``p`` of the gate's paired test: the chance of
        balanced accuracies as far apart as these, if neither version were better.

    Raises:
        RegistryError: No image is the same.
    """
    pairs = _find_pairs(first, second, is_same_source)
    if not pairs:
        raise RegistryError(
            f"versions {first.version} and {second.version} of task {task!r} have no held-out image in "
            "common: they were tuned on different data. Name labelled images for both to answer: "
            f"`ship compare {task} {first.version} {second.version} DATA`"
        )
    of_first = _measure(pairs, [pair.first for pair in pairs])
    of_second = _measure(pairs, [pair.second for pair in pairs])
    better, worse = of_second.beside(of_first), of_first.beside(of_second)
    assert better is not None, "the images are known"
    assert worse is not None, "the images are known"
    p = min(1.0, 2.0 * min(better.difference.p_worse, worse.difference.p_worse))
    fixed = [pair for pair in pairs if pair.second == pair.label != pair.first]
    broken = [pair for pair in pairs if pair.first == pair.label != pair.second]
    both_wrong = [pair for pair in pairs if pair.label not in (pair.first, pair.second)]
    return {
        "task": task,
        "num_images": len(pairs),
        "versions": [
            _describe(evidence, measured) for evidence, measured in ((first, of_first), (second, of_second))
        ],
        "num_fixed": len(fixed),
        "num_broken": len(broken),
        "fixed": [_row(pair) for pair in fixed],
        "broken": [_row(pair) for pair in broken],
        "num_both_right": sum(pair.first == pair.second == pair.label for pair in pairs),
        "num_both_wrong": len(both_wrong),
        "both_wrong": [_row(pair) for pair in both_wrong],
        "p": p,
        "is_significant": p < SIGNIFICANT,
        "outcome": _sentence(first.version, second.version, of_first, of_second, p, len(fixed), len(broken)),
    }


def _find_pairs(first: Evidence, second: Evidence, is_same_source: bool) -> list[_Pair]:
    one, other = first.answers, second.answers
    is_same_data = (
        is_same_source
        or first.card.data_fingerprint == second.card.data_fingerprint
        or (first.held_out is not None and first.held_out == second.held_out)
    )
    place_of = {path: place for place, path in enumerate(other.paths)}
    pairs = []
    for place, path in enumerate(one.paths):
        same = place_of.get(path)
        if same is None or not (is_same_data or one.digests[place] == other.digests[same]):
            continue
        label = one.labels[one.labels_B[place]]
        if label == other.labels[other.labels_B[same]]:
            pairs.append(
                _Pair(
                    path=path,
                    label=label,
                    first=_answer(one, place),
                    second=_answer(other, same),
                    places=(place, same),
                )
            )
    return pairs


def _answer(answers: HeldOut, place: int) -> str:
    logits_C = answers.logits_BC[place]
    return answers.labels[logits_C.index(max(logits_C))]


def _measure(pairs: list[_Pair], answers: list[str]) -> Measurement:
    right = [answer == pair.label for pair, answer in zip(pairs, answers, strict=True)]
    num_of = Counter(pair.label for pair in pairs)
    num_right = Counter(pair.label for hit, pair in zip(right, pairs, strict=True) if hit)
    place_of = {name: place for place, name in enumerate(sorted(num_of))}
    return Measurement(
        accuracy=sum(right) / len(pairs),
        probe_accuracy=None,
        num_images=len(pairs),
        recalls=tuple((num_right[name], num_of[name]) for name in place_of),
        classes=tuple(place_of),
        labels=tuple(place_of[pair.label] for pair in pairs),
        right="".join("01"[hit] for hit in right),
    )


def _describe(evidence: Evidence, measured: Measurement) -> dict[str, Any]:
    num_right = measured.right.count("1")
    low, high = wilson_interval(num_right, measured.num_images)
    return {
        "version": evidence.version,
        "digest": evidence.digest,
        "num_answered": len(evidence.answers),
        "accuracy": {
            "share": measured.accuracy,
            "low": low,
            "high": high,
            "num": num_right,
            "of": measured.num_images,
        },
        "balanced_accuracy": measured.balanced_accuracy,
    }


def _row(pair: _Pair) -> dict[str, Any]:
    return {
        "path": pair.path,
        "label": pair.label,
        "answers": [pair.first, pair.second],
        "places": list(pair.places),
    }


def _sentence(
    first: int,
    second: int,
    of_first: Measurement,
    of_second: Measurement,
    p: float,
    num_fixed: int,
    num_broken: int,
) -> str:
    """The outcome for people."""
    images = f"the same {of_first.num_images} images"
    counts = f"fixes {num_fixed} and breaks {num_broken}"
    chance = f"paired test of balanced accuracies, two-sided p = {p:.2g}"
    if not num_fixed and not num_broken:
        return f"Version {second} is right and wrong on {images} as version {first} is."
    if p >= SIGNIFICANT:
        return (
            f"No significant difference between versions {first} and {second} on {images}: the second "
            f"{counts} ({chance}). More images would tell more."
        )
    assert of_first.balanced_accuracy is not None, "every image has a class"
    assert of_second.balanced_accuracy is not None, "every image has a class"
    word = "better" if of_second.balanced_accuracy > of_first.balanced_accuracy else "worse"
    return (
        f"Version {second} is significantly {word} than version {first} on {images}: it {counts} ({chance})."
    )
