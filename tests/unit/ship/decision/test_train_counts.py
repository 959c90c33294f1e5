"""Scores that have the training images' class shares in them: costs go by those of the held-out images."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ship.decision.choosing import choose_rule
from ship.decision.expectation import mean_cost
from ship.decision.rule import Costs, DecisionRule
from ship.errors import ConfigError
from tests.unit.ship.decision.factory import DrawnTask, assert_stated_as_found

TASK = DrawnTask(separation=1.5)
COSTS = Costs(good="class-0", escape=10.0)
# Of rare defects, as a plant has them, and as they were collected for training.
HELD_OUT, FRESH = [980, 20], [9800, 200]


def draw(counts: list[int], train_counts: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Scores as an unbalanced loss leaves them: with the log of each class's share in training."""
    logits_BC, labels_B = TASK.draw(counts, seed)
    return logits_BC + torch.tensor(train_counts, dtype=torch.float64).log(), labels_B


def choose(train_counts: list[int], seed: int = 0, *, told: bool = True) -> DecisionRule:
    return choose_rule(
        TASK.labels,
        *draw(HELD_OUT, train_counts, seed),
        costs=COSTS,
        cross_fits=False,
        train_counts=train_counts if told else None,
    )


def cost_of(rule: DecisionRule, train_counts: list[int]) -> float:
    logits_BC, labels_B = draw(FRESH, train_counts, 1000)
    decisions = rule.decide_all(TASK.labels, logits_BC.tolist())
    return mean_cost(TASK.labels, labels_B.tolist(), decisions, COSTS)


@pytest.mark.parametrize("train_counts", [[300, 300], [300, 100]])
def test_costs_are_weighed_for_the_held_out_shares(train_counts: list[int]) -> None:
    found = [cost_of(choose(train_counts, seed), train_counts) for seed in range(4)]
    always_good = COSTS.escape * FRESH[1] / sum(FRESH)
    # Twenty defects leave the temperature off by a tenth or two.
    assert max(found) < always_good
    # Taken for probabilities of pictures as frequent as in training, scores reject good parts in crowds.
    assert cost_of(choose(train_counts, told=False), train_counts) > 1.3 * max(found)


@pytest.mark.parametrize("train_counts", [[300, 300], [300, 100]])
def test_stated_probabilities_are_as_often_right_as_they_say(train_counts: list[int]) -> None:
    counts = [20_000, 1000]
    rule = choose_rule(
        TASK.labels, *draw(counts, train_counts, 0), cross_fits=False, train_counts=train_counts
    )
    assert_stated_as_found(rule, TASK.labels, *draw(counts, train_counts, 1))


def test_the_rule_states_held_out_shares_over_those_of_training() -> None:
    found = choose([300, 100]).frequencies
    # With one image more, spread as in training: 980.75 / 0.75 and 20.25 / 0.25, to a sum of 1.
    good, bad = 980.75 / 0.75, 20.25 / 0.25
    assert found == {
        "class-0": pytest.approx(good / (good + bad), rel=1e-5),
        "class-1": pytest.approx(bad / (good + bad), rel=1e-5),
    }
    assert list(found) == list(TASK.labels)
    # The form is that of balanced tasks, which the version before reads.
    rule = choose([300, 100])
    assert rule.to_dict()["schema"] == 2
    assert DecisionRule.from_dict(rule.to_dict()) == rule


@pytest.mark.parametrize("held_out", [[75, 25], [31, 10], [10, 4], [0, 0]])
def test_shares_that_differ_by_rounding_alone_change_nothing(held_out: list[int]) -> None:
    scores = draw(held_out, [300, 100], 0)
    told, untold = (
        choose_rule(TASK.labels, *scores, costs=COSTS, train_counts=counts) for counts in ([300, 100], None)
    )
    assert told == untold
    assert (told.frequencies, told.to_dict()["schema"]) == (None, 1)


def test_labels_and_promises_do_not_move() -> None:
    scores = draw([300, 60], [100, 100], 0)
    wishes = {"recalls": {"class-1": 0.95}, "cross_fits": False}
    plain, told = (
        choose_rule(TASK.labels, *scores, **wishes, train_counts=counts) for counts in (None, [100, 100])
    )
    assert (plain.frequencies is None, told.frequencies is None) == (True, False)
    rows = draw([900, 100], [100, 100], 1)[0].tolist()
    answers = [
        [(one.label, one.because) for one in rule.decide_all(TASK.labels, rows)] for rule in (plain, told)
    ]
    assert answers[0] == answers[1]


def test_calibration_and_cost_are_measured_with_the_frequencies() -> None:
    scores = draw([2000, 100], [300, 300], 0)
    plain, told = (
        choose_rule(TASK.labels, *scores, costs=COSTS, train_counts=counts).expected
        for counts in (None, [300, 300])
    )
    assert told["cost"] < plain["cost"]
    assert told["calibration_error"]["after"] < 0.02
    assert told["cross_entropy"]["after"] < plain["cross_entropy"]["after"]


def test_balanced_scores_have_no_share_of_the_training_images() -> None:
    scores = TASK.draw(HELD_OUT, 0)
    found = [
        choose_rule(TASK.labels, *scores, cross_fits=False, balanced_scores=True, train_counts=counts)
        for counts in (None, [900, 10])
    ]
    assert found[0] == found[1]
    assert replace(found[0], frequencies=None) != found[0]


def test_a_class_without_training_images_counts_as_half_of_one() -> None:
    scores = TASK.draw([50, 50], 0)
    rule = choose_rule(TASK.labels, *scores, cross_fits=False, train_counts=[100, 0])
    half = choose_rule(TASK.labels, *scores, cross_fits=False, train_counts=[200, 1])
    assert rule.frequencies == pytest.approx(half.frequencies)


def test_counts_of_other_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="train_counts: expected 2 numbers, found 3"):
        choose_rule(TASK.labels, *TASK.draw([5, 5], 0), train_counts=[1, 2, 3])
