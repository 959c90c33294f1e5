"""Class shares: those that scores have in them, and those of the held-out images, by which costs are weighed.

Scores of a task that was tuned without a balance have the training images' class shares in them: a class with
twice the images has its score higher by the log of two. What such scores say of pictures with other shares
needs the quotient of both.

Shapes: B held-out images, C classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ship.errors import ConfigError

__all__ = ["find_contained", "find_frequencies"]

# In images: held-out images that were drawn class by class from those of the training differ by rounding.
_ROUNDING = 1.0


def find_contained(
    labels_B: Tensor, num_classes: int, *, balanced_scores: bool, train_counts: Sequence[int] | None
) -> Tensor | None:
    """How frequent each class is in the scores, of mean 1, float64 ``C``; None where there is nothing to do.

    That is so where it is not known, and where the held-out images have the same shares, to within an image
    of each class.

    Args:
        labels_B: Classes of the held-out images.
        num_classes: C.
        balanced_scores: Whether the scores are those of equally frequent classes.
        train_counts: Training images of each class; None where they are not known.

    Raises:
        ConfigError: There are not as many counts as classes.
    """
    if balanced_scores:
        return torch.ones(num_classes, dtype=torch.float64)
    if train_counts is None:
        return None
    if len(train_counts) != num_classes:
        raise ConfigError(f"train_counts: expected {num_classes} numbers, found {len(train_counts)}")
    # A class without an image counts as half of one, as for the balance.
    counts_C = torch.as_tensor(train_counts, dtype=torch.float64).clamp_min(0.5)
    held_out_C = torch.bincount(labels_B, minlength=num_classes)
    expected_C = counts_C / counts_C.sum() * len(labels_B)
    if bool(((held_out_C - expected_C).abs() < _ROUNDING).all()):
        return None
    return counts_C / counts_C.mean()


def find_frequencies(labels: Sequence[str], labels_B: Tensor, contained_C: Tensor) -> dict[str, float]:
    """What ``DecisionRule.frequencies`` is of some held-out images.

    A class's share is taken with half an image more, or as much more or less as the scores have of it: few
    images then say the same as the scores.

    Args:
        labels: Class names.
        labels_B: Classes of the held-out images.
        contained_C: How frequent each class is in the scores, see ``find_contained``.
    """
    counts_C = torch.bincount(labels_B, minlength=len(labels)).double() + 0.5 * contained_C
    weights_C = counts_C / contained_C
    shares = (weights_C / weights_C.sum()).tolist()
    return {label: float(f"{share:.6g}") for label, share in zip(labels, shares, strict=True)}
