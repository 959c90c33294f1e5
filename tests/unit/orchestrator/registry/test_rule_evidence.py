"""What a rule is chosen on: class shares in the scores, distinct pictures, the rate that was asked for."""

from typing import Any

import pytest

from orchestrator.manifest.floors import Floors
from orchestrator.registry.record_writer import RecordWriter, Redecision
from orchestrator.registry.sweeps import Knob, sweep
from orchestrator.registry.thresholds import Thresholds, Wishes, choice_of
from ship.artifact.held_out import HeldOut
from ship.decision.rule import DecisionRule
from ship.errors import ConfigError
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.store.factory import make_key

LABELS = ("good", "bad")
# Trained on three to one, which needs no balance, and on a hundred to one, which has one.
PLAIN: dict[str, Any] = {"train_counts": [300, 100], "balanced_scores": False}
BALANCED: dict[str, Any] = {"train_counts": [1000, 10], "balanced_scores": True}
COSTS = Wishes(costs={"escape": 10.0})


def make_held_out(counts: tuple[int, int], *, num_distinct: int | None = None) -> HeldOut:
    """Every tenth picture of each class looks like the other one; of the bad ones so many differ."""
    labels_B = (0,) * counts[0] + (1,) * counts[1]
    numbers = [*range(counts[0]), *range(counts[1])]
    answers = [label ^ (number % 10 == 9) for label, number in zip(labels_B, numbers, strict=True)]
    lead = [1.0 + number % 7 / 2 for number in numbers]
    distinct = counts[1] if num_distinct is None else num_distinct
    pictures = [
        n if label == 0 else counts[0] + n % distinct for n, label in zip(numbers, labels_B, strict=True)
    ]
    num = len(labels_B)
    return HeldOut(
        labels=LABELS,
        paths=tuple(f"{place}.png" for place in range(num)),
        digests=tuple(f"{picture:032x}" for picture in pictures),
        labels_B=labels_B,
        logits_BC=tuple(
            (x, 0.0) if answer == 0 else (0.0, x) for x, answer in zip(lead, answers, strict=True)
        ),
        distances_B=tuple(1.0 + place / 1000 for place in range(num)),
        num_images=num,
    )


def add(world: World, number: int, record: dict[str, Any], held_out: HeldOut) -> None:
    world.add_tuned(number, labels=LABELS, record=record, held_out=held_out)


def thresholds(world: World) -> Thresholds:
    return Thresholds(world.fresh_registry(), world.store, world.rollouts("anna"), clock=lambda: world.now_s)


def promote_with(world: World, wishes: Wishes) -> None:
    """Let the first version serve, by a rule that was set for it."""
    world.rollouts().promote("bolts", 1)
    made = thresholds(world)
    standing = made.standing("bolts")
    made.set(standing, made.choose(standing, wishes))


def decide(world: World, number: int) -> Redecision:
    return RecordWriter(world.fresh_registry(), world.store).decide_again(
        "bolts", make_key(f"tuned-{number}"), Floors()
    )


def weights_of(counts: tuple[float, float], contained: tuple[float, float]) -> dict[str, Any]:
    """Held-out shares over those of the scores, with an image more, spread as in these."""
    good, bad = (count / share + 1 for count, share in zip(counts, contained, strict=True))
    return {
        "good": pytest.approx(good / (good + bad), rel=1e-5),
        "bad": pytest.approx(bad / (good + bad), rel=1e-5),
    }


@pytest.mark.parametrize(
    ("record", "contained"),
    [
        (PLAIN, (0.75, 0.25)),
        (BALANCED, (0.5, 0.5)),
        # As an earlier version wrote them: by default a balance begins above three to one.
        ({"train_counts": [300, 100]}, (0.75, 0.25)),
        ({"train_counts": [1000, 10]}, (0.5, 0.5)),
    ],
)
def test_costs_go_by_held_out_shares_over_those_of_the_scores(
    record: dict[str, Any], contained: tuple[float, float]
) -> None:
    world = World()
    add(world, 1, record, make_held_out((980, 20)))
    found = thresholds(world)
    standing = found.standing("bolts", 1)
    rule = found.choose(standing, COSTS)
    assert rule.frequencies == weights_of((980, 20), contained)
    # A step of the console's sweep is the rule that would be stored.
    steps = sweep(found, standing, Knob(kind="escape"))["steps"]
    step = next(step["rule"] for step in steps if step["value"] == 10.0)
    assert step["frequencies"] == rule.frequencies
    assert step["temperature"] == rule.temperature


@pytest.mark.parametrize(
    "record", [{}, {"train_counts": [300]}, {"train_counts": [0, 0]}, {"train_counts": "?"}]
)
def test_without_counts_on_record_costs_go_by_the_scores(record: dict[str, Any]) -> None:
    world = World()
    add(world, 1, record, make_held_out((980, 20)))
    found = thresholds(world)
    assert found.choose(found.standing("bolts", 1), COSTS).frequencies is None


@pytest.mark.parametrize(
    ("before", "after", "contained"), [(BALANCED, PLAIN, (0.75, 0.25)), (PLAIN, BALANCED, (0.5, 0.5))]
)
def test_costs_that_are_inherited_go_by_the_new_versions_scores(
    before: dict[str, Any], after: dict[str, Any], contained: tuple[float, float]
) -> None:
    world = World()
    add(world, 1, before, make_held_out((980, 20)))
    promote_with(world, COSTS)
    add(world, 2, after, make_held_out((980, 20)))
    assert decide(world, 2).promoted
    rule = thresholds(world).standing("bolts").rule
    assert rule.costs.escape == 10.0
    assert rule.frequencies == weights_of((980, 20), contained)


def test_copies_of_a_picture_promise_nothing_to_choose_or_to_inherit() -> None:
    world = World()
    add(world, 1, PLAIN, make_held_out((300, 100)))
    add(world, 2, PLAIN, make_held_out((300, 100), num_distinct=20))
    made = thresholds(world)
    recall = Wishes(recalls={"bad": 0.95})
    standing = made.standing("bolts", 2)
    for choose in (
        made.choose,
        lambda *args: list(made.choose_each(args[0], [args[1]], made.held_out(standing))),
    ):
        with pytest.raises(
            ConfigError, match="with 20 held-out images of it, without 80 copies: that takes 59"
        ):
            choose(standing, recall)
    promote_with(world, recall)
    found = decide(world, 2)
    assert (found.promoted, "without 80 copies" in found.reason) == (False, True)


@pytest.mark.parametrize("asked", [None, 0.05])
def test_the_rate_that_was_asked_for_is_inherited_whatever_was_within_reach(asked: float | None) -> None:
    world = World()
    add(world, 1, PLAIN, make_held_out((20, 10)))
    promote_with(world, Wishes(min_confidence=0.1, false_alarm_rate=asked))
    add(world, 2, PLAIN, make_held_out((1500, 500)))
    assert decide(world, 2).promoted
    made = thresholds(world)
    before, after = (made.standing("bolts", number).rule.expected["far"] for number in (1, 2))
    rate = asked or 0.01
    assert (before["asked_rate"], after["asked_rate"]) == (rate, rate)
    assert before["false_alarm_rate"] >= 1 / 31
    assert after["false_alarm_rate"] == pytest.approx(rate, abs=1 / 2001)


@pytest.mark.parametrize(
    ("expected", "rate"),
    [
        ({}, 0.01),
        # Of 30 images the default reaches 1/31: that is what was asked for, as far as anyone can tell.
        ({"num_images": 30, "far": {"false_alarm_rate": 1 / 31}}, 0.01),
        ({"num_images": 2000, "far": {"false_alarm_rate": 20 / 2001}}, 0.01),
        # What the default does not lead to was asked for.
        ({"num_images": 30, "far": {"false_alarm_rate": 3 / 31}}, 3 / 31),
        ({"num_images": 999, "far": {"false_alarm_rate": 1 / 1000}}, 1 / 1000),
        ({"far": {"false_alarm_rate": 1 / 31}}, 1 / 31),
        ({"num_images": 30, "far": {"false_alarm_rate": 1 / 31, "asked_rate": 0.03}}, 0.03),
        ({"num_images": 30, "far": {"asked_rate": "much"}}, 0.01),
        ({"num_images": "30", "far": None}, 0.01),
    ],
)
def test_the_rate_of_a_rule_of_an_earlier_version_is_told_as_far_as_it_can_be(
    expected: dict[str, Any], rate: float
) -> None:
    own = DecisionRule()
    before = DecisionRule(expected=expected)
    chosen = choice_of(before, Wishes(), own=own, scores=None, labels=LABELS)
    assert chosen["false_alarm_rate"] == rate
