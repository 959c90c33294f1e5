"""The power law of a learning curve, against laws that are known."""

import math

import pytest

from ship.evaluation.learning_curve import LearningCurve


def law(a: float, b: float, *numbers: int) -> list[tuple[int, float]]:
    return [(n, 1.0 - a * n**-b) for n in numbers]


@pytest.mark.parametrize(("a", "b"), [(2.0, 0.5), (1.0, 0.25), (0.3, 0.0), (5.0, 1.0)])
def test_a_law_is_found_again(a: float, b: float) -> None:
    curve = LearningCurve.fit(law(a, b, 25, 50, 100), 1000)
    assert curve is not None
    assert (curve.a, curve.b) == (pytest.approx(a), pytest.approx(b, abs=1e-9))
    assert curve.accuracy(400) == pytest.approx(1.0 - a * 400**-b)


def test_images_for_an_accuracy_follow_from_the_law() -> None:
    curve = LearningCurve.fit(law(2.0, 0.5, 25, 50, 100), 1000)
    assert curve is not None
    # 1 - 2 / sqrt(n) = 0.9 at n = 400.
    assert curve.images_for(0.9) == pytest.approx(400, abs=1)
    assert curve.images_for(0.5) == 100, "there are as many already"
    assert curve.images_for(0.99) is None, "40,000 images are too far from 100"
    assert curve.images_for(1.0) is None
    assert not curve.is_flat


def test_a_better_adapter_has_the_same_law_from_where_it_is() -> None:
    curve = LearningCurve.fit(law(2.0, 0.5, 25, 50, 100), 1000)
    assert curve is not None
    better = curve.through(0.9)
    assert better.accuracy(100) == pytest.approx(0.9)
    assert better.accuracy(400) == pytest.approx(0.95)


@pytest.mark.parametrize("accuracies", [(0.6, 0.6, 0.6), (0.7, 0.65, 0.6)])
def test_a_curve_that_does_not_rise_is_flat(accuracies: tuple[float, ...]) -> None:
    curve = LearningCurve.fit(list(zip((25, 50, 100), accuracies, strict=True)), 1000)
    assert curve is not None
    assert curve.b == 0.0
    assert curve.is_flat
    assert curve.images_for(0.9) is None


def test_no_error_counts_as_half_an_image_and_no_faster_than_the_images_grow() -> None:
    curve = LearningCurve.fit([(25, 0.5), (50, 0.9), (100, 1.0)], 50)
    assert curve is not None
    assert curve.b == 1.0
    assert math.isfinite(curve.a)
    assert curve.accuracy(1) == 0.0


@pytest.mark.parametrize("points", [[], [(10, 0.5)], [(10, 0.5), (10, 0.6)], [(0, 0.5), (10, 0.6)]])
def test_two_numbers_of_images_are_needed(points: list[tuple[int, float]]) -> None:
    assert LearningCurve.fit(points, 10) is None
