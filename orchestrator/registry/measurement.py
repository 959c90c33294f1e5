"""What an artifact records of its accuracy on held-out images, and tests of differences between two."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ship.evaluation.paired import Difference, compare_paired

__all__ = ["Measurement", "balanced_low"]

_Z_95 = 1.959963984540054


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
    labels: tuple[int, ...] = ()
    right: str = ""
    probe_right: str = ""

    @classmethod
    def read(cls, card: Mapping[str, Any], record: Mapping[str, Any]) -> Self:
        """The measurement in an artifact's card and record; what is missing or odd there is left out."""
        metrics = card.get("metrics", {})
        answers = record.get("held_out") or {}
        labels, right = tuple(answers.get("labels", ())), str(answers.get("right", ""))
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
        if not self.recalls:
            return None
        return sum(found / all_ for found, all_ in self.recalls) / len(self.recalls)

    @property
    def chance(self) -> float | None:
        """Balanced accuracy of guessing."""
        return 1 / len(self.recalls) if self.recalls else None

    @property
    def balanced_low(self) -> float | None:
        """Lower end of the 95% interval of the balanced accuracy; None if it is not known."""
        return balanced_low(self.recalls) if self.recalls else None

    def beside_probe(self) -> Difference | None:
        """This version beside the linear probe; None if that cannot be tested."""
        if self.probe_right:
            return compare_paired(self.labels, self.right, self.probe_right)
        return _unpaired(self.accuracy, self.num_images, self.probe_accuracy, self.num_images)

    def beside(self, other: "Measurement") -> Difference | None:
        """This version beside another one; None if that cannot be tested."""
        if self.data == other.data and self.labels and self.labels == other.labels:
            return compare_paired(self.labels, self.right, other.right)
        return _unpaired(self.accuracy, self.num_images, other.accuracy, other.num_images)


def balanced_low(recalls: Sequence[tuple[float, float]]) -> float:
    """Lower end of the 95% interval of a balanced accuracy.

    Of each class two images more are counted, of which a guess gets its share right (A. Agresti and B. Coull,
    1998, with the guess in place of a half): few images then say little.

    Args:
        recalls: Right and all images of each class.
    """
    chance = 1 / len(recalls)
    shares = [((found + 2 * chance) / (all_ + 2), all_ + 2) for found, all_ in recalls]
    variance = sum(share * (1 - share) / count for share, count in shares) / len(shares) ** 2
    return sum(share for share, _ in shares) / len(shares) - _Z_95 * math.sqrt(variance)


def _unpaired(
    accuracy: float | None, num_images: int, other: float | None, num_other: int
) -> Difference | None:
    """One-sided test of two shares on images that are not known one by one."""
    if accuracy is None or other is None:
        return None
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
