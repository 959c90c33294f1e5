"""A rule makes a label, or `unsure`, of scores; it is kept as plain values, and anything else is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from ship.decision.rule import UNSURE, Costs, DecisionRule, share_beside
from ship.errors import ConfigError

LABELS = ("good", "scratch", "dent")


def logits(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


@pytest.mark.parametrize(
    ("rule", "probabilities", "distance", "label", "because"),
    [
        (DecisionRule(), (0.2, 0.5, 0.3), None, "scratch", None),
        (DecisionRule(max_distance=2.0), (0.2, 0.5, 0.3), 2.0, "scratch", None),
        (DecisionRule(max_distance=2.0), (0.2, 0.5, 0.3), 2.1, UNSURE, "far"),
        (DecisionRule(max_distance=2.0), (0.2, 0.5, 0.3), None, "scratch", None),
        (DecisionRule(min_confidence=0.5), (0.3, 0.45, 0.25), None, UNSURE, "confidence"),
        # 0.05 beside 0.85 is a share of 0.0556.
        (DecisionRule(thresholds={"scratch": 0.055}), (0.85, 0.05, 0.1), None, "scratch", None),
        (DecisionRule(thresholds={"scratch": 0.056}), (0.85, 0.05, 0.1), None, "good", None),
        (DecisionRule(thresholds={"scratch": 0.5}), (0.3, 0.4, 0.3), None, "scratch", None),
        (DecisionRule(thresholds={"scratch": 0.1, "good": 0.1}), (0.6, 0.3, 0.1), None, UNSURE, "several"),
        (DecisionRule(thresholds={"scratch": 0.1, "good": 0.1}), (0.9, 0.05, 0.05), None, "good", None),
        (
            DecisionRule(thresholds={"scratch": 0.0}, min_confidence=0.2),
            (0.9, 0.05, 0.05),
            None,
            UNSURE,
            "confidence",
        ),
        # An escape costs 50 times a false reject: 0.9 of good is not enough, 0.99 is.
        (DecisionRule(costs=Costs(good="good", escape=50.0)), (0.9, 0.04, 0.06), None, "dent", None),
        (DecisionRule(costs=Costs(good="good", escape=50.0)), (0.99, 0.004, 0.006), None, "good", None),
        (DecisionRule(costs=Costs(good="good", unsure=0.4)), (0.5, 0.2, 0.3), None, UNSURE, "cost"),
        (DecisionRule(costs=Costs(good="ok", escape=50.0)), (0.9, 0.04, 0.06), None, "good", None),
        # What is promised comes before what it costs.
        (
            DecisionRule(thresholds={"scratch": 0.04}, costs=Costs(good="good", false_reject=9.0)),
            (0.9, 0.05, 0.05),
            None,
            "scratch",
            None,
        ),
    ],
)
def test_a_rule_decides(
    rule: DecisionRule,
    probabilities: tuple[float, ...],
    distance: float | None,
    label: str,
    because: str | None,
) -> None:
    found = rule.decide(LABELS, logits(*probabilities), distance)
    assert (found.label, found.because) == (label, because)
    assert found.probabilities == pytest.approx(probabilities)


def test_the_temperature_divides_the_scores() -> None:
    found = DecisionRule(temperature=2.0).decide(("a", "b"), [0.0, 4.0])
    assert found.probabilities[1] == pytest.approx(1 / (1 + math.exp(-2.0)))


def test_scores_far_apart_are_no_error() -> None:
    rule = DecisionRule(temperature=0.05, thresholds={"a": 0.0, "b": 1e-300})
    assert rule.decide(("a", "b"), [-1e6, 1e6]).because == "several"
    assert replace(rule, thresholds={"a": 1e-300}).decide(("a", "b"), [-1e6, 1e6]).label == "b"


def test_the_share_beside_the_likeliest_class_orders_pictures_alike_at_any_temperature() -> None:
    margins = [-30.0, -5.0, -1.0, -0.2, 0.0]
    for temperature in (0.05, 1.0, 20.0):
        shares = [share_beside(margin, temperature) for margin in margins]
        assert shares == sorted(shares)
        assert shares[-1] == 0.5
    # Of two classes it is the probability.
    assert share_beside(-1.5, 3.0) == pytest.approx(
        DecisionRule(temperature=3.0).probabilities([0.0, 1.5])[0]
    )


RULE = DecisionRule(
    temperature=1.7,
    thresholds={"scratch": 0.03},
    recalls={"scratch": 0.99},
    costs=Costs(good="good", escape=50.0, unsure=0.2),
    min_confidence=0.4,
    max_distance=1.9,
    expected={"num_images": 12},
)


WITH_FREQUENCIES = replace(RULE, frequencies={"good": 0.95, "scratch": 0.04, "dent": 0.01})


@pytest.mark.parametrize(
    "rule", [RULE, DecisionRule(), WITH_FREQUENCIES], ids=["all", "default", "frequencies"]
)
def test_a_rule_comes_back_from_its_plain_values(rule: DecisionRule) -> None:
    assert DecisionRule.from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False))) == rule


HOSTILE: dict[str, Callable[[dict], object]] = {
    "no mapping": lambda v: [v],
    "unknown key": lambda v: {**v, "run": 1},
    "missing key": lambda v: {k: x for k, x in v.items() if k != "recalls"},
    "newer schema": lambda v: {**v, "schema": 3},
    "no schema": lambda v: {**v, "schema": None},
    "frequencies without their schema": lambda v: {**v, "frequencies": {"good": 0.9, "scratch": 0.1}},
    "schema of frequencies without any": lambda v: {**v, "schema": 2},
    "frequencies of null": lambda v: {**v, "schema": 2, "frequencies": None},
    "frequencies of a list": lambda v: {**v, "schema": 2, "frequencies": [0.5, 0.5]},
    "frequencies of no label": lambda v: {**v, "schema": 2, "frequencies": {}},
    "frequency of 0": lambda v: {**v, "schema": 2, "frequencies": {"good": 1.0, "scratch": 0.0}},
    "frequency of text": lambda v: {**v, "schema": 2, "frequencies": {"good": "0.5"}},
    "frequency of truth": lambda v: {**v, "schema": 2, "frequencies": {"good": True}},
    "frequency that is NaN": lambda v: {**v, "schema": 2, "frequencies": {"good": math.nan}},
    "endless frequency": lambda v: {**v, "schema": 2, "frequencies": {"good": 10**400}},
    "temperature of 0": lambda v: {**v, "temperature": 0},
    "temperature of text": lambda v: {**v, "temperature": "1"},
    "temperature of truth": lambda v: {**v, "temperature": True},
    "endless temperature": lambda v: {**v, "temperature": 10**400},
    "infinite distance": lambda v: {**v, "max_distance": math.inf},
    "negative distance": lambda v: {**v, "max_distance": -1.0},
    "NaN": lambda v: {**v, "min_confidence": math.nan},
    "thresholds of a list": lambda v: {**v, "thresholds": [0.1]},
    "thresholds of text": lambda v: {**v, "thresholds": {"scratch": "0.1"}},
    "threshold above 1": lambda v: {**v, "thresholds": {"scratch": 1.1}},
    "recall below 0": lambda v: {**v, "recalls": {"scratch": -0.1}},
    "costs of a list": lambda v: {**v, "costs": [1]},
    "unknown cost": lambda v: {**v, "costs": {**v["costs"], "run": 1}},
    "endless cost": lambda v: {**v, "costs": {**v["costs"], "escape": 10**400}},
    "negative cost": lambda v: {**v, "costs": {**v["costs"], "unsure": -1}},
    "costs of no label": lambda v: {**v, "costs": {**v["costs"], "good": 3}},
    "expected of a list": lambda v: {**v, "expected": []},
    "infinite figure": lambda v: {**v, "expected": {"images": math.inf}},
}


def test_only_a_rule_with_frequencies_is_of_the_second_schema() -> None:
    assert (RULE.to_dict()["schema"], WITH_FREQUENCIES.to_dict()["schema"]) == (1, 2)
    assert WITH_FREQUENCIES.to_dict() == {
        **RULE.to_dict(),
        "schema": 2,
        "frequencies": WITH_FREQUENCIES.frequencies,
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_rule_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        DecisionRule.from_dict(HOSTILE[name](RULE.to_dict()))
