"""Ranks of order statistics, against published tables and the binomial distribution itself."""

from math import comb

import pytest

from ship.decision.limits import conformal_rank, fewest_for, highest_for, tolerance_rank


@pytest.mark.parametrize(
    # Sample sizes of one-sided tolerance limits at 95% confidence (Wilks; first, second and third order).
    ("num", "share", "rank"),
    [
        (58, 0.05, 0),
        (59, 0.05, 1),
        (92, 0.05, 1),
        (93, 0.05, 2),
        (123, 0.05, 2),
        (124, 0.05, 3),
        (298, 0.01, 0),
        (299, 0.01, 1),
        (473, 0.01, 2),
    ],
)
def test_ranks_are_those_of_the_tables(num: int, share: float, rank: int) -> None:
    assert tolerance_rank(num, share, 0.05) == rank


@pytest.mark.parametrize("num", [1, 7, 40, 200])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("doubt", [0.01, 0.05, 0.3])
def test_the_rank_is_the_highest_that_keeps_the_doubt(num: int, share: float, doubt: float) -> None:
    def doubt_of(rank: int) -> float:
        return sum(comb(num, k) * share**k * (1 - share) ** (num - k) for k in range(rank))

    rank = tolerance_rank(num, share, doubt)
    assert rank == 0 or doubt_of(rank) <= doubt
    assert doubt_of(rank + 1) > doubt
    assert (rank > 0) == (num >= fewest_for(share, doubt))


def test_many_numbers_are_no_error() -> None:
    # Half of 100,000, less 1.645 standard deviations of 158.
    assert tolerance_rank(100_000, 0.5, 0.05) == pytest.approx(50_000 - 260, abs=2)


def test_what_is_highest_needs_no_more_than_there_are() -> None:
    for num in (1, 5, 59, 300):
        assert fewest_for(1 - highest_for(num, 0.05) + 1e-9, 0.05) <= num
    assert highest_for(0, 0.05) == 0.0


@pytest.mark.parametrize(
    ("num", "rate", "rank"),
    [(99, 0.01, 99), (98, 0.01, 98), (5, 0.01, 5), (199, 0.01, 198), (199, 0.05, 190), (9, 0.5, 5)],
)
def test_a_further_number_is_beyond_with_at_most_the_rate(num: int, rate: float, rank: int) -> None:
    assert conformal_rank(num, rate) == rank
    assert (num + 1 - rank) / (num + 1) <= max(rate, 1 / (num + 1)) + 1e-12
