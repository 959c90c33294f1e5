"""Paired test of two classifiers that answered the same held-out images.

Shapes: B held-out images, C classes, D images on which the two differ, N sign patterns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIGNIFICANT", "Difference", "compare_paired"]

# Of classifiers that are no worse, about one in twenty is called worse at most.
SIGNIFICANT = 0.05
# All sign patterns are tried up to this number of differing images, else a fixed sample of them.
_MAX_EXACT, _NUM_DRAWS = 12, 4000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A classifier beside another one, such as the linear probe.

    Attributes:
        p_worse: Chance of a result as bad as this, if it were no worse (one-sided).
        gained: Images that it alone gets right; None if the images are not known.
        lost: Images that the other alone gets right.
    """

    p_worse: float
    gained: int | None = None
    lost: int | None = None

    @property
    def is_worse(self) -> bool:
        """Whether it is significantly worse."""
        return self.p_worse < SIGNIFICANT

    def __str__(self) -> str:
        """The counts and the chance, for people."""
        counts = (
            "" if self.gained is None else f"right on {self.gained} where it errs, wrong on {self.lost}, "
        )
        p = "p < 0.001" if self.p_worse < 0.001 else f"p = {self.p_worse:.2g}"
        return f"{counts}{p}"


def compare_paired(labels: Sequence[int], right: str, other: str) -> Difference:
    """Sign-flip test of the difference of two balanced accuracies on the same images, or the normal test.

    If neither were better, each image on which they differ would be as likely to speak for the one as for the
    other: with classes of one size that is the exact test of McNemar (1947). It holds only where neither is
    better in any class. Two that are as good on the whole, the one in common images and the other in rare
    ones, differ in few images of a rare class or in none, and the flips take what these show for certain.
    The normal test counts how little few images of a class show. The larger chance of the two is taken.

    Args:
        labels: Label of each image, 0..C-1.
        right: A character an image: ``1`` where the classifier is right, else ``0``.
        other: The same of the other one.

    Raises:
        ValueError: The three are not of one length.
    """
    labels_B = np.asarray(labels, dtype=np.int64)
    sizes_C = np.bincount(labels_B)
    weight_B = 1.0 / (np.count_nonzero(sizes_C) * sizes_C[labels_B])
    signs_B = np.array([int(a) - int(b) for a, b in zip(right, other, strict=True)], dtype=np.int64)
    differs_B = signs_B != 0
    weights_D, observed = weight_B[differs_B], float((weight_B * signs_B).sum())
    return Difference(
        p_worse=max(_share_below(weights_D, observed), _normal_chance(labels_B, signs_B)),
        gained=int((signs_B > 0).sum()),
        lost=int((signs_B < 0).sum()),
    )


def _normal_chance(labels_B: NDArray[np.int64], signs_B: NDArray[np.int64]) -> float:
    """Chance of a mean difference as low as this by the normal distribution, with a variance of each class.

    Of each class one image more is counted that differs, for and against alike: a class in which no image
    differs, or each does, is not known for certain.
    """
    sizes_C = np.bincount(labels_B)
    has_images_C = sizes_C > 0
    sizes_C = sizes_C[has_images_C]
    sums_C = np.bincount(labels_B, weights=signs_B)[has_images_C]
    differing_C = np.bincount(labels_B, weights=signs_B != 0)[has_images_C]
    variance_C = ((differing_C + 1) / (sizes_C + 1) - (sums_C / (sizes_C + 1)) ** 2) / sizes_C
    z = float((sums_C / sizes_C).sum() / np.sqrt(variance_C.sum()))
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _share_below(weights_D: NDArray[np.float64], observed: float) -> float:
    """Share of sign patterns whose sum is no more than the one observed."""
    if not len(weights_D):
        return 1.0
    if len(weights_D) <= _MAX_EXACT:
        signs_ND = np.array(list(product((-1.0, 1.0), repeat=len(weights_D))))
        return float((signs_ND @ weights_D <= observed + 1e-12).mean())
    draws = np.random.default_rng(0).integers(0, 2, (_NUM_DRAWS, len(weights_D)), dtype=np.int8)
    num_below = int(((2.0 * draws - 1.0) @ weights_D <= observed + 1e-12).sum())
    # What was observed is a pattern, too: a share of zero would claim what no sample can show.
    return (num_below + 1) / (_NUM_DRAWS + 1)
