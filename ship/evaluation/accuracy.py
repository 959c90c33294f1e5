"""Evaluation of a classifier on held-out images.

Shapes: B images, C classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Evaluation", "calibration_error", "evaluate_logits", "wilson_interval"]

_Z_95 = 1.959963984540054
_NUM_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Counts on one split.

    Attributes:
        accuracy: Share of images whose highest score is the label's.
        low: Lower end of its 95% Wilson interval.
        high: Upper end.
        confusion_CC: Counts; rows are the truth.
        calibration_error: Expected calibration error (C. Guo et al., ICML 2017) in ten bins of equal width:
            how far, on average, the highest probability is from how often it is right.
        right: A character an image, in order: ``1`` where the highest score is the label's, else ``0``. Two
            evaluations on the same images are compared image by image.
    """

    accuracy: float
    low: float
    high: float
    confusion_CC: list[list[int]]
    calibration_error: float
    right: str

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images."""
        recalls = [recall for recall in self.recalls if recall is not None]
        return sum(recalls) / max(1, len(recalls))

    @property
    def recalls(self) -> list[float | None]:
        """Share of each class's images that were found; None for a class without any."""
        rows = enumerate(self.confusion_CC)
        return [row[label] / sum(row) if sum(row) else None for label, row in rows]


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """95% score interval of a share (Wilson 1927); right also for few images and at 0 or 1."""
    if num_images == 0:
        return 0.0, 1.0
    share, z2 = num_correct / num_images, _Z_95**2
    centre = (share + z2 / (2 * num_images)) / (1 + z2 / num_images)
    spread = math.sqrt(share * (1 - share) / num_images + z2 / (4 * num_images**2))
    half = _Z_95 / (1 + z2 / num_images) * spread
    return max(0.0, centre - half), min(1.0, centre + half)


def evaluate_logits(logits_BC: Tensor, labels_B: Tensor) -> Evaluation:
    """Accuracy with its interval, and the confusion matrix."""
    num_classes, predicted_B = logits_BC.shape[1], logits_BC.argmax(dim=1)
    confusion = torch.bincount(labels_B * num_classes + predicted_B, minlength=num_classes**2)
    right = "".join("1" if right else "0" for right in (predicted_B == labels_B).tolist())
    num_correct = right.count("1")
    low, high = wilson_interval(num_correct, len(labels_B))
    return Evaluation(
        accuracy=num_correct / max(1, len(labels_B)),
        low=low,
        high=high,
        confusion_CC=confusion.view(num_classes, num_classes).tolist(),
        calibration_error=calibration_error(logits_BC, labels_B),
        right=right,
    )


def calibration_error(logits_BC: Tensor, labels_B: Tensor) -> float:
    """Expected calibration error; see ``Evaluation``."""
    if not len(labels_B):
        return 0.0
    confidence_B, predicted_B = logits_BC.double().softmax(dim=1).max(dim=1)
    gap_B = (predicted_B == labels_B).double() - confidence_B
    bin_B = (confidence_B * _NUM_BINS).long().clamp(max=_NUM_BINS - 1)
    gaps = torch.zeros(_NUM_BINS, dtype=torch.float64).index_add_(0, bin_B, gap_B)
    return float(gaps.abs().sum() / len(labels_B))
