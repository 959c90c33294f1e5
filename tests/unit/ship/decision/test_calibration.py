"""A fitted temperature mends probabilities, and does no harm where they are right or images are few."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from ship.decision.calibration import fit_temperature
from ship.decision.choosing import choose_rule
from tests.unit.ship.decision.factory import DrawnTask


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_temperature_of_many_images_is_that_of_the_scores(scale: float, num_classes: int) -> None:
    scores = DrawnTask(separation=1.5, num_classes=num_classes, scale=scale).draw([3000] * num_classes, 1)
    # Its standard error is some 2% with so many images.
    assert fit_temperature(*scores) == pytest.approx(scale, rel=0.06)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_of_balanced_scores_is_found_with_the_prior(scale: float) -> None:
    """The scores are those of equally frequent classes, of which one has 2% of the pictures."""
    scores = DrawnTask(separation=1.5, scale=scale).draw([20_000, 400], 1)
    log_prior_C = torch.tensor([20_000.0, 400.0]).div(20_400.0).log()
    # Of 400 pictures of the rare class, the standard error is some 4%.
    assert fit_temperature(*scores, log_prior_C) == pytest.approx(scale, rel=0.12)
    assert fit_temperature(*scores, torch.zeros(2)) == fit_temperature(*scores)


@pytest.mark.parametrize("num", [5, 20, 100])
@pytest.mark.parametrize("separation", [1.0, 2.5, 4.0])
def test_few_images_never_make_right_probabilities_much_worse(num: int, separation: float) -> None:
    """On fresh pictures, the mean over drawn sets: 0.02 is a third of what a scale of 3 costs."""
    task = DrawnTask(separation=separation, num_classes=3)
    fresh = task.draw([1000] * 3, seed=999)
    before = float(cross_entropy(*fresh))
    after = [
        float(cross_entropy(fresh[0] / fit_temperature(*task.draw([num] * 3, seed)), fresh[1]))
        for seed in range(30)
    ]
    assert sum(after) / len(after) <= before + 0.02


@pytest.mark.parametrize("num", [20, 100])
def test_scores_that_are_too_sure_are_mended_with_few_images(num: int) -> None:
    task = DrawnTask(separation=1.5, num_classes=3, scale=4.0)
    fresh = task.draw([1000] * 3, seed=999)
    before = float(cross_entropy(*fresh))
    after = [
        float(cross_entropy(fresh[0] / fit_temperature(*task.draw([num] * 3, seed)), fresh[1]))
        for seed in range(20)
    ]
    assert max(after) < before
    right = float(cross_entropy(fresh[0] / 4.0, fresh[1]))
    assert sum(after) / len(after) - right < 0.25 * (before - right)


@pytest.mark.parametrize("num", [2, 50, 5000])
@pytest.mark.parametrize("gap", [0.5, 3.0, 200.0])
def test_images_that_are_all_right_give_no_certainty(num: int, gap: float) -> None:
    logits_BC = torch.tensor([[0.0, gap]], dtype=torch.float64).expand(num, 2)
    temperature = fit_temperature(logits_BC, torch.ones(num, dtype=torch.int64))
    assert 0.04 < temperature <= 1.0
    # No more than about one error in a few times as many images is ruled out by them.
    if gap < 100:
        assert 1 / (1 + math.exp(gap / temperature)) > 1 / (50 * (num + 1))


def test_images_that_are_all_wrong_and_no_images_at_all() -> None:
    logits_BC = torch.tensor([[0.0, 6.0]], dtype=torch.float64).expand(80, 2)
    assert fit_temperature(logits_BC, torch.zeros(80, dtype=torch.int64)) == pytest.approx(20.0, rel=0.01)
    assert fit_temperature(logits_BC[:0], torch.zeros(0, dtype=torch.int64)) == 1.0


def test_calibration_is_measured_on_images_that_it_was_not_fitted_on() -> None:
    task = DrawnTask(separation=1.5, num_classes=3, scale=4.0)
    found = choose_rule(task.labels, *task.draw([300] * 3, seed=3)).expected
    assert found["cross_fitted"]
    assert found["calibration_error"]["after"] < 0.4 * found["calibration_error"]["before"]
    assert found["cross_entropy"]["after"] < found["cross_entropy"]["before"]
    # With a temperature fitted on the same images it would be lower than on others.
    scores = task.draw([10] * 3, seed=1)
    few = choose_rule(task.labels, *scores)
    fitted = float(cross_entropy(scores[0] / few.temperature, scores[1]))
    assert few.expected["cross_entropy"]["after"] > fitted
