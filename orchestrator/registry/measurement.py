"""What an artifact records of its accuracy on held-out images, and tests of differences between two."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ship.evaluation.paired import Difference, compare_paired

__all__ = ["Beside", "Measurement", "balanced_low"]

_Z_95 = 1.959963984540054
# Of the images that another version was measured on: with fewer in common, what all say counts.
_MOST = 0.8
# Right and all images of each class that has some.
_Recalls = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A version beside another one, or beside the linear probe: the shares that were tested, and the test.

    Attributes:
        share: Name of the share: ``accuracy``, ``balanced accuracy``, or that of the classes, or of
            the images, that both have.
        own: The version's.
        other: The other one's.
        own_accuracy: The version's accuracy.
        other_accuracy: The other one's.
        difference: The test.
    """

    share: str
    own: float
    other: float
    own_accuracy: float
    other_accuracy: float
    difference: Difference

    @property
    def is_paired(self) -> bool:
        """Whether both answered the images that were tested."""
        return self.difference.gained is not None

    @property
    def is_accuracy(self) -> bool:
        """Whether the shares read like the accuracies."""
        shares, accuracies = (self.own, self.other), (self.own_accuracy, self.other_accuracy)
        return [f"{share:.4f}" for share in shares] == [f"{share:.4f}" for share in accuracies]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Measurement of a version on its held-out images.

    Attributes:
        accuracy: Share of images that it gets right; None if it was not measured.
        probe_accuracy: That of the linear probe.
        num_images: Number of images; 0 if it is not known.
        accuracy_low: Lower end of the accuracy's 95% interval.
        recalls: Right and all images of each class that has some; empty if they are not known.
        classes: Names of these classes.
        unmeasured: Names of the classes without an image.
        data: Fingerprint of its data.
        held_out: Fingerprint of its held-out images and their labels; None if it is not on record.
        images: Digest of each image, its label included; empty if they are not on record.
        labels: Label of each image; empty in artifacts of earlier versions.
        right: Whether it gets each image right.
        probe_right: Whether the linear probe does.
    """

    accuracy: float | None
    probe_accuracy: float | None
    num_images: int = 0
    accuracy_low: float | None = None
    recalls: tuple[tuple[int, int], ...] = ()
    classes: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    data: str | None = None
    held_out: str | None = None
    images: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    right: str = ""
    probe_right: str = ""

    @classmethod
    def read(cls, card: Mapping[str, Any], record: Mapping[str, Any]) -> Self:
        """The measurement in an artifact's card and record; what is missing or odd there is left out."""
        metrics = card.get("metrics", {})
        answers = record.get("held_out") or {}
        labels, right = tuple(answers.get("labels", ())), str(answers.get("right", ""))
        images = tuple(map(str, answers.get("images") or ()))
        probe_right = str(answers.get("probe_right", ""))
        counts = _counts_of(record.get("confusion") or ())
        named = list(zip((str(name) for name in record.get("labels") or ()), counts, strict=False))
        return cls(
            accuracy=_number(metrics, "accuracy"),
            probe_accuracy=_number(metrics, "probe_accuracy"),
            num_images=int(_number(metrics, "num_test") or 0),
            accuracy_low=_number(metrics, "accuracy_low"),
            recalls=tuple(count for count in counts if count[1] > 0),
            classes=tuple(name for name, (_, all_) in named if all_ > 0),
            unmeasured=tuple(name for name, (_, all_) in named if all_ == 0),
            data=card.get("data_fingerprint"),
            held_out=answers.get("fingerprint") or None,
            images=images if len(images) == len(labels) == len(right) else (),
            labels=labels if len(labels) == len(right) else (),
            right=right if len(labels) == len(right) else "",
            probe_right=probe_right if len(labels) == len(right) == len(probe_right) else "",
        )

    def recall(self, name: str) -> float | None:
        """Recall of a class; None if it has no images."""
        found = dict(zip(self.classes, self.recalls, strict=False)).get(name)
        return None if found is None else found[0] / found[1]

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean recall of the classes; None if these are not known."""
        return _mean_recall(self.recalls) if self.recalls else None

    @property
    def chance(self) -> float | None:
        """Balanced accuracy of guessing."""
        return 1 / len(self.recalls) if self.recalls else None

    @property
    def balanced_low(self) -> float | None:
        """Lower end of the 95% interval of the balanced accuracy; None if it is not known."""
        return balanced_low(self.recalls) if self.recalls else None

    def beside_probe(self) -> Beside | None:
        """This version beside the linear probe; None if that cannot be tested."""
        if self.accuracy is None or self.probe_accuracy is None:
            return None
        if self.probe_right:
            return _paired(self.labels, self.right, self.probe_right)
        return _by_accuracy(self.accuracy, self.num_images, self.probe_accuracy, self.num_images)

    def beside(self, other: "Measurement") -> Beside | None:
        """This version beside another one; None if that cannot be tested.

        On the same images the test is paired, and so it is on those that both answered, where they are most
        of the other one's. Else balanced accuracies are compared: of the classes that both have, or, where
        these are fewer than two, of all. Where recalls are not known, or are of one class, accuracies are.
        """
        if self.accuracy is None or other.accuracy is None:
            return None
        if self._is_paired_with(other):
            return _paired(self.labels, self.right, other.right)
        if shared := self._find_common(other):
            labels, right, other_right = shared
            share = f"balanced accuracy of the {len(labels)} images that both answered"
            return _paired(labels, right, other_right, share)
        if min(len(self.recalls), len(other.recalls)) < 2:
            return _by_accuracy(self.accuracy, self.num_images, other.accuracy, other.num_images)
        common = self._common_recalls(other)
        share, own, others = "balanced accuracy", self.recalls, other.recalls
        if len(common) > 1:
            own, others = tuple(pair[0] for pair in common), tuple(pair[1] for pair in common)
            difference = _compare_in_common(own, others)
        else:
            difference = _compare_apart(own, others)
        if len(own) < max(len(self.recalls), len(other.recalls)) and len(common) > 1:
            share += f" of the {len(common)} classes that both have"
        return Beside(
            share=share,
            own=_mean_recall(own),
            other=_mean_recall(others),
            own_accuracy=self.accuracy,
            other_accuracy=other.accuracy,
            difference=difference,
        )

    def is_on_images_of(self, other: "Measurement") -> bool | None:
        """Whether both were measured on the same images with the same labels; None if that is not on record.

        The same data have the same held-out images. Other data may have them as well.
        """
        if self.data == other.data:
            return True
        if self.held_out is None or other.held_out is None:
            return None
        return self.held_out == other.held_out

    def _is_paired_with(self, other: "Measurement") -> bool:
        """Whether the answers of both are known, and are about the same images one by one.

        A fingerprint of held-out images holds their order and the names of their classes. The number of a
        class may be another one: where a class came in between, or an import has an order of its own.
        """
        if not self.labels or len(self.labels) != len(other.labels):
            return False
        if self.held_out is not None and self.held_out == other.held_out:
            return True
        return self.data == other.data and self.labels == other.labels

    def _find_common(self, other: "Measurement") -> tuple[list[int], str, str] | None:
        """Label of each image that both answered, and who is right; None if these are too few.

        Where a cut moved with an added image, most images are held out of both. They have to be most of the
        other one's, of all classes that both were measured on.
        """
        place_of = {image: place for place, image in enumerate(other.images)}
        own = [place for place, image in enumerate(self.images) if image in place_of]
        labels = [self.labels[place] for place in own]
        if not own or len(own) < _MOST * len(other.images):
            return None
        if len(set(labels)) < max(2, min(len(self.recalls), len(other.recalls))):
            return None
        others = [place_of[self.images[place]] for place in own]
        right = "".join(self.right[place] for place in own)
        return labels, right, "".join(other.right[place] for place in others)

    def _common_recalls(self, other: "Measurement") -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Recalls of the classes that both have, by name; in their order, where both leave names out."""
        if not self.classes and not other.classes and len(self.recalls) == len(other.recalls):
            return list(zip(self.recalls, other.recalls, strict=True))
        others = dict(zip(other.classes, other.recalls, strict=False))
        own = zip(self.classes, self.recalls, strict=False)
        return [(recall, others[name]) for name, recall in own if name in others]


def balanced_low(recalls: Sequence[tuple[float, float]]) -> float:
    """Lower end of the 95% interval of a balanced accuracy.

    Of each class two images more are counted, of which a guess gets its share right (A. Agresti and B. Coull,
    1998, with the guess in place of a half): few images then say little.

    Args:
        recalls: Right and all images of each class.
    """
    mean, variance = _smoothed(recalls)
    return mean - _Z_95 * math.sqrt(variance)


def _smoothed(recalls: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Balanced accuracy with two images more of each class, see ``balanced_low``, and its variance."""
    chance = 1 / len(recalls)
    shares = [((found + 2 * chance) / (all_ + 2), all_ + 2) for found, all_ in recalls]
    variance = sum(share * (1 - share) / count for share, count in shares) / len(shares) ** 2
    return sum(share for share, _ in shares) / len(shares), variance


def _mean_recall(recalls: _Recalls) -> float:
    return sum(found / all_ for found, all_ in recalls) / len(recalls)


def _paired(labels: Sequence[int], right: str, other: str, share: str = "balanced accuracy") -> Beside:
    """Two that answered the same images."""
    num_of = Counter(labels)

    def measure(answers: str) -> tuple[float, float]:
        found = Counter(label for label, answer in zip(labels, answers, strict=True) if answer == "1")
        return _mean_recall([(found[label], num_of[label]) for label in sorted(num_of)]), found.total() / len(
            labels
        )

    (own, own_accuracy), (others, other_accuracy) = measure(right), measure(other)
    return Beside(
        share=share,
        own=own,
        other=others,
        own_accuracy=own_accuracy,
        other_accuracy=other_accuracy,
        difference=compare_paired(labels, right, other),
    )


def _by_accuracy(accuracy: float, num_images: int, other: float, num_other: int) -> Beside:
    """Two of which the accuracies are known, and no more."""
    difference = _compare_shares(accuracy, num_images, other, num_other)
    return Beside(
        share="accuracy",
        own=accuracy,
        other=other,
        own_accuracy=accuracy,
        other_accuracy=other,
        difference=difference,
    )


def _compare_in_common(own: _Recalls, other: _Recalls) -> Difference:
    """One-sided test of two balanced accuracies of the same classes, on images of their own.

    Each class has the variance of the share that both get right together, with two images more, of which a
    guess gets its share right, as in ``balanced_low``.
    """
    variance = 0.0
    for (found, all_), (found_other, all_other) in zip(own, other, strict=True):
        share = (found + found_other + 2 / len(own)) / (all_ + all_other + 2)
        variance += share * (1 - share) * (1 / all_ + 1 / all_other) / len(own) ** 2
    step = max(1 / all_ + 1 / all_other for (_, all_), (_, all_other) in zip(own, other, strict=True))
    return _by_normal(own, other, variance, step / len(own))


def _compare_apart(own: _Recalls, other: _Recalls) -> Difference:
    """One-sided test of two balanced accuracies of classes of their own."""
    step = sum(1 / (len(recalls) * min(all_ for _, all_ in recalls)) for recalls in (own, other))
    return _by_normal(own, other, _smoothed(own)[1] + _smoothed(other)[1], step)


def _by_normal(own: _Recalls, other: _Recalls, variance: float, step: float) -> Difference:
    """Normal test of the difference of two balanced accuracies.

    Args:
        own: Right and all images of each class.
        other: Those of the other one.
        variance: Variance of the difference.
        step: What an image of the rarest class moves, of both. A fourth of it is the correction for
            continuity: without it those with three images of a class are called worse too often.
    """
    z = (_mean_recall(own) - _mean_recall(other) + step / 4) / math.sqrt(variance)
    return Difference(p_worse=0.5 * math.erfc(-z / math.sqrt(2)))


def _compare_shares(accuracy: float, num_images: int, other: float, num_other: int) -> Difference:
    """One-sided test of two shares on images that are not known one by one."""
    if not (num_images and num_other):
        return Difference(p_worse=0.0 if accuracy < other else 1.0)
    pooled = (accuracy * num_images + other * num_other) / (num_images + num_other)
    error = math.sqrt(pooled * (1 - pooled) * (1 / num_images + 1 / num_other))
    if error == 0.0:
        return Difference(p_worse=1.0)
    return Difference(p_worse=0.5 * math.erfc(-(accuracy - other) / error / math.sqrt(2)))


def _counts_of(confusion: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Right and all images of each class."""
    try:
        return [(int(row[label]), sum(map(int, row))) for label, row in enumerate(confusion)]
    except (TypeError, ValueError, IndexError):
        return []


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
