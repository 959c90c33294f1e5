"""Whether a version is told from guessing by its recalls: by the interval, and by what a guess may reach.

Shapes: N and M images of two classes, of which a guess gets 0 to N and 0 to M right.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.registry.measurement import balanced_low

__all__ = ["MOST_BY_CHANCE", "chance_of_guess", "is_told_from_guessing"]

# One-sided, as the lower end of a 95% interval.
MOST_BY_CHANCE = 0.025
# Images of the rarer of two classes from which on the interval alone is right, to 0.003.
_ENOUGH = 50
# More images of the common class count as so many: they tell little more, and take time.
_MOST_COMMON = 5000
# Log-odds at which a guess answers the rarer class.
_LOG_ODDS = np.linspace(-12.0, 12.0, 121)


def is_told_from_guessing(recalls: Sequence[tuple[float, float]]) -> bool:
    """Whether a version does more than guess.

    Args:
        recalls: Right and all images of each class, of two at least.
    """
    if balanced_low(recalls) <= 1 / len(recalls):
        return False
    chance = chance_of_guess(recalls)
    return chance is None or chance <= MOST_BY_CHANCE


def chance_of_guess(recalls: Sequence[tuple[float, float]]) -> float | None:
    """Largest chance that answers which look at no picture reach this balanced accuracy, of two classes.

    The interval rests on the normal distribution. Beside 500 images of one class, up to one guess in ten
    passes it with a single image of the other one, and one in twenty with five. Of more classes it is right
    to 0.006, and of two with many images each to 0.003: that takes no exact test.

    Args:
        recalls: Right and all images of each class.

    Returns:
        The chance; None where the interval is right.
    """
    if len(recalls) != 2 or min(all_ for _, all_ in recalls) >= _ENOUGH:
        return None
    (rare, num_rare), (common, num_common) = sorted(
        ((round(found), round(all_)) for found, all_ in recalls), key=lambda recall: recall[1]
    )
    if num_common > _MOST_COMMON:
        common, num_common = math.floor(common * _MOST_COMMON / num_common), _MOST_COMMON
    reached = rare / num_rare + common / num_common
    # Images of the common class that have to be right beside so many of the rare one.
    least_M = np.ceil(num_common * (reached - np.arange(num_rare + 1) / num_rare) - 1e-9)
    least_M = least_M.clip(0, num_common + 1).astype(np.int64)
    chances = []
    for share in 1.0 / (1.0 + np.exp(-_LOG_ODDS)):
        tail_N = np.append(np.cumsum(_binomial(num_common, 1.0 - share)[::-1])[::-1], 0.0)
        chances.append(float(_binomial(num_rare, share) @ tail_N[least_M]))
    return max(chances)


def _binomial(number: int, share: float) -> NDArray[np.float64]:
    """Probabilities of 0 to that many successes."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, number + 1)))])
    places = np.arange(number + 1)
    powers = places * math.log(share) + (number - places) * math.log1p(-share)
    return np.asarray(np.exp(logs[-1] - logs - logs[::-1] + powers))
