"""Calibration: one temperature that makes probabilities agree with how often they are right.

Shapes: B images, C classes.
"""

import math

from torch import Tensor

__all__ = ["fit_temperature"]

# Weight of the temperature 1, in images: of 1, 2, 4 and 8, the one that did little harm to calibrated scores
# of ten images, and still mended scores that were three times too large.
_PRIOR = 4.0
_LOWEST, _HIGHEST = 0.05, 20.0
_MOST_STEPS = 40
_TOLERANCE = 1e-6


def fit_temperature(logits_BC: Tensor, labels_B: Tensor, log_prior_C: Tensor | None = None) -> float:
    """The temperature of least cross-entropy (C. Guo et al., ICML 2017), drawn towards 1 for few images.

    With ``a`` for one over the temperature, ``a - 1 - log(a)`` is added ``_PRIOR`` times: the sum is convex
    in ``a``, and has its minimum at a finite temperature above 0 also where every image is right. Newton's
    method finds it, with a bisection of what is left between the ends where a step would leave that.

    Args:
        logits_BC: Scores of held-out images.
        labels_B: Their classes.
        log_prior_C: Log of each class's share of such images over the share that the scores have in them, up
            to a common number, where these differ; added after the division. The sum stays convex.
    """
    logits_BC = logits_BC.double()
    log_prior_C = None if log_prior_C is None else log_prior_C.to(logits_BC)
    right = float(logits_BC.gather(1, labels_B.unsqueeze(1)).sum())
    a, low, high = 1.0, 1 / _HIGHEST, 1 / _LOWEST
    for _ in range(_MOST_STEPS):
        scaled_BC = a * logits_BC
        p_BC = (scaled_BC if log_prior_C is None else scaled_BC + log_prior_C).softmax(dim=1)
        mean_B1 = (p_BC * logits_BC).sum(dim=1, keepdim=True)
        slope = float(mean_B1.sum()) - right + _PRIOR * (1 - 1 / a)
        curvature = float((p_BC * (logits_BC - mean_B1).square()).sum()) + _PRIOR / a**2
        low, high = (low, a) if slope > 0 else (a, high)
        step = a - slope / curvature
        before, a = a, step if low <= step <= high else math.sqrt(low * high)
        if abs(a - before) <= _TOLERANCE * a:
            break
    return float(f"{1 / a:.6g}")
