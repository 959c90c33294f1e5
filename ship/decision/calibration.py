"""Calibration: one temperature that makes probabilities agree with how often they are right.

Shapes: B images, C classes.
"""

import math

from torch import Tensor

__all__ = ["fit_temperature"]

# Weight of the temperature 1 against the images, in images.
_PRIOR = 4.0
_LOWEST, _HIGHEST = 0.05, 20.0
_NUM_HALVINGS = 24


def fit_temperature(logits_BC: Tensor, labels_B: Tensor) -> float:
    """The temperature of least cross-entropy (C. Guo et al., ICML 2017), drawn towards 1 for few images.

    With ``a`` for one over the temperature, ``a - 1 - log(a)`` is added ``_PRIOR`` times: the sum is convex
    in ``a``, and has its minimum at a finite temperature above 0 also where every image is right.

    Args:
        logits_BC: Scores of held-out images.
        labels_B: Their classes.
    """
    logits_BC = logits_BC.double()
    right_B = logits_BC.gather(1, labels_B.unsqueeze(1)).squeeze(1)
    low, high = math.log(1 / _HIGHEST), math.log(1 / _LOWEST)
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        a = math.exp(middle)
        expected_B = ((a * logits_BC).softmax(dim=1) * logits_BC).sum(dim=1)
        slope = float((expected_B - right_B).sum()) + _PRIOR * (1 - 1 / a)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(f"{math.exp(-(low + high) / 2):.6g}")
