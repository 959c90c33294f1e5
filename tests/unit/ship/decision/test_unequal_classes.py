"""Scores of equally frequent classes, as balanced tasks have: costs go by how frequent they are."""

import math

import pytest

from ship.decision.choosing import choose_rule
from ship.decision.expectation import mean_cost
from ship.decision.rule import Costs, DecisionRule
from tests.unit.ship.decision.factory import DrawnTask, assert_stated_as_found

# One defect in 21 pictures, and good parts in the others; its scores are twice as sure as they should be.
TASK = DrawnTask(separation=1.2, scale=2.0)
HELD_OUT, FRESH = [500, 25], [5000, 250]
ALWAYS_GOOD = 250 / 5250
LABELS = ("good", "scratch", "dent")


def cost_of(costs: Costs, seed: int, *, balanced_scores: bool) -> float:
    """Mean cost of fresh pictures, decided by a rule that was chosen on held-out ones."""
    rule = choose_rule(
        TASK.labels,
        *TASK.draw(HELD_OUT, seed),
        costs=costs,
        balanced_scores=balanced_scores,
        cross_fits=False,
    )
    logits_BC, labels_B = TASK.draw(FRESH, 1000 + seed)
    decisions = rule.decide_all(TASK.labels, logits_BC.tolist())
    return mean_cost(TASK.labels, labels_B.tolist(), decisions, costs)


@pytest.mark.parametrize("escape", [1.0, 10.0])
def test_decisions_about_rare_defects_cost_no_more_than_always_good(escape: float) -> None:
    costs = Costs(good="class-0", escape=escape)
    found = [cost_of(costs, seed, balanced_scores=True) for seed in range(4)]
    # A temperature of 25 defects is off by a tenth or two, which moves the cost by a few parts in a hundred.
    assert max(found) <= 1.05 * escape * ALWAYS_GOOD
    assert sum(found) / 4 < escape * ALWAYS_GOOD
    # By the probabilities of equally frequent classes, every fifth good part would be rejected.
    assert cost_of(costs, 0, balanced_scores=False) > 1.3 * escape * ALWAYS_GOOD


def test_stated_probabilities_are_as_often_right_as_they_say() -> None:
    held_out = TASK.draw([20_000, 1000], 0)
    rule = choose_rule(TASK.labels, *held_out, balanced_scores=True, cross_fits=False)
    assert_stated_as_found(rule, TASK.labels, *TASK.draw([20_000, 1000], 1))


def test_the_rule_states_the_frequencies_of_the_held_out_images() -> None:
    rule = choose_rule(TASK.labels, *TASK.draw([499, 0], 0), balanced_scores=True, cross_fits=False)
    # Half an image more of each class: none is ruled out.
    assert rule.frequencies == {"class-0": 0.999, "class-1": 0.001}


def test_calibration_is_measured_with_the_frequencies() -> None:
    task = DrawnTask(separation=1.2, scale=4.0)
    scores = task.draw([2000, 100], 0)
    found = choose_rule(task.labels, *scores, balanced_scores=True).expected
    assert found["calibration_error"]["after"] < 0.02 < found["calibration_error"]["before"]
    assert found["cross_entropy"]["after"] < 0.6 * found["cross_entropy"]["before"]
    # The best that can be said without a picture's scores.
    share = 100 / 2100
    assert found["cross_entropy"]["after"] < -share * math.log(share) - (1 - share) * math.log(1 - share)


def test_labels_probabilities_and_promises_do_not_move() -> None:
    scores = TASK.draw([300, 60], 0)
    wishes = {"recalls": {"class-1": 0.95}, "cross_fits": False}
    plain, balanced = (
        choose_rule(TASK.labels, *scores, **wishes, balanced_scores=balanced) for balanced in (False, True)
    )
    rows = TASK.draw([900, 100], 1)[0].tolist()
    answers = [
        [(one.label, one.because) for one in rule.decide_all(TASK.labels, rows)] for rule in (plain, balanced)
    ]
    assert answers[0] == answers[1]
    for row in rows[:50]:
        p_C = balanced.decide(TASK.labels, row).probabilities
        assert p_C == DecisionRule(temperature=balanced.temperature).probabilities(row)
        assert p_C.index(max(p_C)) == row.index(max(row))


def test_a_rule_without_balanced_scores_has_no_frequencies() -> None:
    scores = TASK.draw([300, 60], 0)
    rule = choose_rule(TASK.labels, *scores, costs=Costs(good="class-0"), cross_fits=False)
    assert (rule.frequencies, rule.to_dict()["schema"]) == (None, 1)
    assert "frequencies" not in rule.to_dict()
    row = [0.3, -0.2]
    assert rule.natural_probabilities(TASK.labels, row) == rule.probabilities(row)


RARE = DecisionRule(
    costs=Costs(good="good", escape=3.0), frequencies={"good": 0.9, "scratch": 0.09, "dent": 0.01}
)


@pytest.mark.parametrize(
    ("probabilities", "label", "natural_good"),
    [
        # 0.4 * 0.9 to 0.3 * 0.09 and 0.3 * 0.01.
        ((0.4, 0.3, 0.3), "good", 0.36 / 0.39),
        ((0.2, 0.4, 0.4), "good", 0.18 / 0.22),
        # A dent is the likeliest class, and rare: what is named is what the probabilities say.
        ((0.02, 0.44, 0.54), "dent", 0.018 / (0.018 + 0.0396 + 0.0054)),
    ],
)
def test_costs_are_weighed_by_the_frequencies(
    probabilities: tuple[float, ...], label: str, natural_good: float
) -> None:
    row = [math.log(p) for p in probabilities]
    found = RARE.decide(LABELS, row)
    assert (found.label, found.probabilities) == (label, pytest.approx(probabilities))
    assert RARE.natural_probabilities(LABELS, row)[0] == pytest.approx(natural_good)


def test_labels_without_a_frequency_are_weighed_as_they_are() -> None:
    row = [math.log(p) for p in (0.4, 0.3, 0.3)]
    assert RARE.log_frequencies(("good", "scratch", "hole")) is None
    assert RARE.decide(("good", "scratch", "hole"), row).label == "scratch"
    assert RARE.decide(("good", "scratch"), row[:2]).label == "good"
