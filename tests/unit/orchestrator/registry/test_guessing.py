"""How often a guess passes as a version that looks at its pictures, and what still passes."""

import math

import numpy as np
import pytest

from orchestrator.registry.guessing import MOST_BY_CHANCE, chance_of_guess, is_told_from_guessing
from orchestrator.registry.measurement import balanced_low


def chances(number: int, share: float) -> np.ndarray:
    return np.array(
        [math.comb(number, k) * share**k * (1 - share) ** (number - k) for k in range(number + 1)]
    )


@pytest.mark.parametrize("num_rare", [1, 2, 3, 5])
@pytest.mark.parametrize("num_common", [10, 100])
def test_however_few_images_a_class_has_a_guess_passes_as_seldom_as_is_said(
    num_common: int, num_rare: int
) -> None:
    told = np.array(
        [
            [is_told_from_guessing([(common, num_common), (rare, num_rare)]) for rare in range(num_rare + 1)]
            for common in range(num_common + 1)
        ]
    )
    most = max(
        chances(num_common, 1 - share) @ told @ chances(num_rare, share)
        for share in np.linspace(0.005, 0.995, 100)
    )
    # The log-odds that are tried are 0.2 apart.
    assert most <= MOST_BY_CHANCE + 0.001


def test_the_interval_alone_lets_a_guess_pass_with_one_image_of_a_class() -> None:
    recalls = [(475, 500), (1, 1)]
    assert balanced_low(recalls) > 0.5
    assert not is_told_from_guessing(recalls)
    # The defect is found by chance, and 475 good ones at least are answered so.
    expected = max(share * sum(chances(500, 1 - share)[475:]) for share in np.linspace(0.02, 0.08, 61))
    assert chance_of_guess(recalls) == pytest.approx(expected, abs=0.0005)


@pytest.mark.parametrize(
    "recalls",
    [[(3, 3), (3, 3)], [(6, 6), (5, 6)], [(500, 500), (1, 1)], [(450, 500), (3, 3)], [(32, 40), (8, 10)]],
)
def test_what_answers_well_is_told_from_guessing_by_few_images(recalls: list[tuple[int, int]]) -> None:
    assert is_told_from_guessing(recalls)


def test_more_classes_or_many_images_take_no_exact_test() -> None:
    assert chance_of_guess([(3, 3)] * 3) is None
    assert chance_of_guess([(40, 50), (40, 50)]) is None
    chance = chance_of_guess([(700_000, 1_000_000), (9, 10)])
    assert chance is not None
    assert chance < 0.01
