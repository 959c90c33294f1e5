"""The figures of a rule: by hand, and measured on images that it was not chosen on."""

import pytest
import torch

from ship.decision.choosing import choose_rule
from ship.decision.expectation import expected_figures, mean_cost
from ship.decision.rule import UNSURE, Costs, Decision
from ship.evaluation.accuracy import wilson_interval
from tests.unit.ship.decision.factory import DrawnTask

LABELS = ("good", "scratch", "dent")


def decision(label: str) -> Decision:
    because = {"?": "confidence", "far": "far"}.get(label)
    return Decision(label=UNSURE if because else label, probabilities=(), because=because)


TRUTH_AND_ANSWERS = [
    *(("good", answer) for answer in ("good", "good", "scratch", "?")),
    *(("scratch", answer) for answer in ("scratch", "good", "far", "dent", "scratch")),
]


def test_the_figures_are_those_of_the_counts() -> None:
    truth = [LABELS.index(label) for label, _ in TRUTH_AND_ANSWERS]
    decisions = [decision(answer) for _, answer in TRUTH_AND_ANSWERS]

    found = expected_figures(LABELS, truth, decisions, "good")

    counts = {
        "accuracy": (4, 7),
        "unsure": (2, 9),
        "far": (1, 9),
        "false_rejects": (1, 4),
        "escapes": (1, 5),
    }
    for name, (num, of) in counts.items():
        low, high = wilson_interval(num, of)
        assert found[name] == {"share": num / of, "low": low, "high": high, "num": num, "of": of}, name
    # A class without pictures has no figures.
    assert {label: (x["num"], x["of"]) for label, x in found["recall"].items()} == {
        "good": (2, 4),
        "scratch": (2, 5),
    }
    assert {label: (x["num"], x["of"]) for label, x in found["caught"].items()} == {
        "good": (3, 4),
        "scratch": (3, 5),
    }
    costs = Costs(good="good", escape=50.0, false_reject=2.0, unsure=0.5)
    # An escape, a false reject, two looks; a scratch that is called a dent costs nothing.
    assert mean_cost(LABELS, truth, decisions, costs) == pytest.approx((50 + 2 + 2 * 0.5) / 9)


def test_a_class_called_unsure_is_no_unsure() -> None:
    found = expected_figures((UNSURE, "b"), [0, 1], [decision(UNSURE), decision("b")], None)
    assert (found["accuracy"]["num"], found["unsure"]["num"]) == (2, 0)
    assert "escapes" not in found


def test_expected_figures_are_close_to_those_of_fresh_pictures() -> None:
    """Of a rule with all its parts: within its interval and one more half of it, as both are drawn."""
    task = DrawnTask(separation=1.6, num_classes=3, scale=2.0)
    generator = torch.Generator().manual_seed(0)
    wishes = {"recalls": {"class-1": 0.9}, "costs": Costs(good="class-0", escape=5.0, unsure=0.3)}
    scores, distances_B = task.draw([300] * 3, seed=1), torch.rand(900, generator=generator)
    rule = choose_rule(task.labels, *scores, distances_B, **wishes)
    fresh_BC, fresh_B = task.draw([800] * 3, seed=2)
    far_B = torch.rand(2400, generator=generator)
    decisions = [
        rule.decide(task.labels, logits_C, distance)
        for logits_C, distance in zip(fresh_BC.tolist(), far_B.tolist(), strict=True)
    ]
    fresh = expected_figures(task.labels, fresh_B.tolist(), decisions, "class-0")
    assert rule.expected["num_images"] == 900
    assert rule.expected["cross_fitted"] is True
    pairs = [
        (rule.expected[name], fresh[name])
        for name in ("accuracy", "unsure", "far", "false_rejects", "escapes")
    ]
    pairs += [
        (rule.expected[part][label], fresh[part][label])
        for part in ("recall", "caught")
        for label in task.labels
    ]
    for ours, theirs in pairs:
        half = (ours["high"] - ours["low"]) / 2
        assert ours["low"] - half <= theirs["share"] <= ours["high"] + half
    cost = mean_cost(task.labels, fresh_B.tolist(), decisions, rule.costs)
    assert rule.expected["cost"] == pytest.approx(cost, rel=0.2)


def test_figures_are_not_those_of_the_images_that_a_rule_was_chosen_on() -> None:
    """With the lowest of 59 as threshold none of these is lost; a fresh one is, now and then."""
    task = DrawnTask(separation=1.0)
    missed = 0
    for seed in range(20):
        rule = choose_rule(task.labels, *task.draw([20, 59], seed), recalls={"class-1": 0.95})
        scores = task.draw([20, 59], seed)
        on_these = [rule.decide(task.labels, logits_C).label for logits_C in scores[0][20:].tolist()]
        assert "class-0" not in on_these
        caught = rule.expected["caught"]["class-1"]
        missed += caught["of"] - caught["num"]
    # One in each of ten folds' order statistics: 59 in 60 are kept, of 20 times 59.
    assert 8 <= missed <= 35


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_a_rule_of_hardly_any_images(num: int) -> None:
    rule = choose_rule(("a", "b"), torch.ones(num, 2), [0] * num, torch.arange(num) + 1.0)
    assert rule.expected["num_images"] == num
    assert rule.expected["cross_fitted"] == (num > 1)
    assert rule.max_distance == (num or None)


def test_the_same_images_give_the_same_rule() -> None:
    task = DrawnTask(separation=1.0, num_classes=3)
    scores = task.draw([40] * 3, seed=0)
    assert choose_rule(task.labels, *scores) == choose_rule(
        task.labels, scores[0].tolist(), scores[1].tolist()
    )
