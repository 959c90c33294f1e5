"""Paired test of two classifiers: values that can be counted by hand, and how often it errs on drawn ones."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from ship.evaluation.paired import Difference, compare_paired


def test_five_lost_and_none_gained_is_one_pattern_of_thirty_two() -> None:
    found = compare_paired([0, 1] * 10, "0" * 5 + "1" * 15, "1" * 20)
    assert found == Difference(p_worse=1 / 32, gained=0, lost=5)
    assert found.is_worse
    assert str(found) == "right on 0 where it errs, wrong on 5, p = 0.031"


@pytest.mark.parametrize(("right", "other", "p"), [("1111", "1111", 1.0), ("1111", "0000", 1.0)])
def test_what_is_no_worse_is_not_called_worse(right: str, other: str, p: float) -> None:
    assert compare_paired([0, 0, 1, 1], right, other).p_worse == p


def test_an_image_of_a_rare_class_weighs_more() -> None:
    # Four of fifty common ones gained, one of two rare ones lost: accuracy rises, balanced accuracy falls.
    labels = [0] * 50 + [1] * 2
    gained, lost = "1" * 51 + "0", "0" * 4 + "1" * 48
    assert compare_paired(labels, gained, lost).p_worse == 0.5
    assert compare_paired([0] * 52, gained, lost).p_worse > 0.9


def test_a_sample_of_patterns_never_claims_certainty() -> None:
    found = compare_paired([0, 1] * 30, "0" * 60, "1" * 60)
    assert found.p_worse == 1 / 4001
    assert str(found) == "right on 0 where it errs, wrong on 60, p < 0.001"


def test_answers_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare_paired([0, 1], "11", "1")


def test_a_rare_class_in_which_no_image_differs_is_not_known_for_certain() -> None:
    # Thirty of 500 common images lost, none of three rare ones: sign flips alone give p = 0.0002.
    found = compare_paired([0] * 500 + [1] * 3, "0" * 30 + "1" * 473, "1" * 503)
    assert found.p_worse == pytest.approx(0.42, abs=0.01)
    certain = compare_paired([0] * 500 + [1] * 500, "0" * 30 + "1" * 970, "1" * 1000)
    assert certain.p_worse == 1 / 4001, "of 500 images that is known"


def test_one_image_of_a_rare_class_says_little_also_where_it_differs() -> None:
    assert not compare_paired([0] * 500 + [1], "0" * 30 + "1" * 470 + "0", "1" * 501).is_worse


def share_worse(
    num_rare: int, one: tuple[float, float], other: tuple[float, float], correlation: float, num_draws: int
) -> float:
    """How often the first classifier is called worse on 500 common and some rare images.

    Each classifier has an accuracy on common and one on rare images; errors are correlated.
    """
    rng, labels = np.random.default_rng(num_rare), [0] * 500 + [1] * num_rare
    least = [[NormalDist().inv_cdf(share[label]) for label in labels] for share in (one, other)]
    num_worse = 0
    for _ in range(num_draws):
        common = math.sqrt(correlation) * rng.normal(size=len(labels))
        right = [common + math.sqrt(1 - correlation) * rng.normal(size=len(labels)) < bar for bar in least]
        bits = ["".join("01"[bool(each)] for each in answers) for answers in right]
        num_worse += compare_paired(labels, *bits).is_worse
    return num_worse / num_draws


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("num_rare", [3, 5, 10, 20])
def test_what_is_as_good_is_seldom_called_worse_however_rare_a_class_is(
    num_rare: int, correlation: float
) -> None:
    # One in twenty, and three standard errors of the 60 draws.
    assert share_worse(num_rare, (0.90, 0.85), (0.98, 0.77), correlation, 60) <= 0.05 + 0.085
    assert share_worse(num_rare, (0.93, 0.90), (0.98, 0.82), correlation, 60) <= 0.05 + 0.085


def test_what_is_blind_to_a_rare_class_is_called_worse() -> None:
    # 0.91 of 400 draws.
    assert share_worse(20, (0.95, 0.55), (0.95, 0.90), 0.7, 60) >= 0.8
