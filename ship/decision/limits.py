"""Limits by order statistics: of some numbers drawn alike, the one that most further ones lie beyond.

Nothing is assumed of the numbers' distribution.
"""

import math

__all__ = ["conformal_rank", "fewest_for", "highest_for", "reached_rate", "tolerance_rank"]


def tolerance_rank(num: int, share: float, doubt: float) -> int:
    """Rank, from 1, of the highest of some numbers that few further ones lie below.

    A tolerance limit (S. S. Wilks, 1941): below the k-th lowest lies a share that is distributed as the k-th
    lowest of as many uniform numbers, so that it exceeds ``share`` with the probability that fewer than k of
    them do not: a binomial tail.

    Args:
        num: Number of numbers.
        share: Highest probability of a further number below the limit, above 0.
        doubt: Probability that this is not kept, over drawn sets of numbers.

    Returns:
        0 where not even the lowest keeps it.
    """
    below, rank = 0.0, 0
    while rank < num:
        below += math.exp(_log_choose(num, rank) + rank * math.log(share) + (num - rank) * math.log1p(-share))
        if below > doubt:
            break
        rank += 1
    return rank


def fewest_for(share: float, doubt: float) -> int:
    """Fewest numbers of which the lowest keeps ``share``; see ``tolerance_rank``."""
    return math.ceil(math.log(doubt) / math.log1p(-share))


def highest_for(num: int, doubt: float) -> float:
    """Highest share of further numbers from the lowest of ``num`` on that can be promised."""
    return doubt ** (1 / num) if num else 0.0


def conformal_rank(num: int, rate: float) -> int:
    """Rank, from 1, of the number that a further one exceeds with a probability of at most ``rate``.

    Split conformal prediction (V. Vovk et al., 2005): the probability is ``(num + 1 - rank) / (num + 1)``,
    over the draw of all of them. With too few numbers it is the rank of the highest.
    """
    return min(num, math.ceil((num + 1) * (1 - rate) - 1e-9))


def reached_rate(num: int, rate: float) -> float:
    """Probability that a further number exceeds that of ``conformal_rank``; above ``rate`` for few."""
    return (num + 1 - conformal_rank(num, rate)) / (num + 1)


def _log_choose(num: int, chosen: int) -> float:
    return math.lgamma(num + 1) - math.lgamma(chosen + 1) - math.lgamma(num - chosen + 1)
