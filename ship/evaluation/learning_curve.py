"""Learning curve: held-out accuracy by number of training images, and how it goes on.

Errors fall about as a power of the number of images (J. Hestness et al., arXiv:1712.00409).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

__all__ = ["LearningCurve"]

# Errors fall no faster than by as much as the images grow; a curve that rises is flat.
_STEEPEST = 1.0
# Beyond this many times the images there are, a curve of three points says nothing.
_FARTHEST = 32.0
# A doubling that gains less is not worth the pictures.
_WORTH_IT = 0.01


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Power law of the error, ``a * n**-b``, through measured points.

    Attributes:
        a: Error at one image, by the law.
        b: From 0, where images do not help, to 1.
        num_images: Training images of the last point.
    """

    a: float
    b: float
    num_images: int

    @classmethod
    def fit(cls, points: Sequence[tuple[int, float]], num_held_out: int) -> Self | None:
        """Least squares in logarithms; None for fewer than two numbers of images.

        Args:
            points: Number of training images and held-out accuracy, in rising order.
            num_held_out: Images that accuracy was measured on; no error counts as less than half of one.
        """
        if len({n for n, _ in points}) < 2 or min(n for n, _ in points) < 1:
            return None
        least = 0.5 / max(1, num_held_out)
        x = [math.log(n) for n, _ in points]
        y = [math.log(max(1.0 - accuracy, least)) for _, accuracy in points]
        middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
        slope = sum((u - middle_x) * (v - middle_y) for u, v in zip(x, y, strict=True))
        b = min(_STEEPEST, max(0.0, -slope / sum((u - middle_x) ** 2 for u in x)))
        return cls(a=math.exp(middle_y + b * middle_x), b=b, num_images=points[-1][0])

    def through(self, accuracy: float) -> Self:
        """The same law for an adapter of this accuracy at the last point."""
        return replace(self, a=(1.0 - accuracy) * math.pow(self.num_images, self.b))

    def accuracy(self, num_images: float) -> float:
        """Accuracy to be expected with that many training images."""
        return 1.0 - min(1.0, self.a * math.pow(num_images, -self.b))

    @property
    def is_flat(self) -> bool:
        """Whether twice the images would gain less than 0.01."""
        return self.accuracy(2 * self.num_images) - self.accuracy(self.num_images) < _WORTH_IT

    def images_for(self, accuracy: float) -> int | None:
        """Training images for this accuracy; None if the curve does not get there in 32 times as many."""
        if self.accuracy(self.num_images) >= accuracy:
            return self.num_images
        if self.b == 0.0 or accuracy >= 1.0:
            return None
        logarithm = math.log(self.a / (1.0 - accuracy)) / self.b
        if logarithm > math.log(_FARTHEST * self.num_images):
            return None
        return math.ceil(math.exp(logarithm))
