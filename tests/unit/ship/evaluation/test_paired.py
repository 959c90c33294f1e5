"""Paired test of two classifiers, against values that can be counted by hand."""

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
