"""The test for drift keeps its promises: alarms where pictures change, and none where they do not."""

import math
import random
from collections.abc import Callable

import pytest

from ship.errors import ConfigError
from ship.evaluation.drift import RUN_LENGTH, Detector, Observation, Reference, Watch

Draw = Callable[[random.Random], Observation]


def _draw(
    rng: random.Random, bad: float = 0.3, gap: float = 2.5, away: float = 0.0, labels: int = 2
) -> Observation:
    """A picture of a task: its share of bad parts, the lead of answers, how far pictures have moved."""
    confidence = 1.0 / (1.0 + math.exp(-abs(rng.gauss(gap, 1.0)) / (1.0 + away)))
    label = "bad" if rng.random() < bad else f"good-{rng.randrange(labels - 1)}"
    distance = rng.gammavariate(20, 1 / 20) + away
    return Observation(label=label, is_unsure=confidence < 0.8, confidence=confidence, distance=distance)


def _reference(draw: Draw, num: int, rng: random.Random) -> Reference:
    found = Reference.of([draw(rng) for _ in range(num)])
    assert isinstance(found, Reference)
    return found


SHIFTS: dict[str, Draw] = {
    "another product": lambda rng: _draw(rng, away=1.5),
    "a wave of defects": lambda rng: _draw(rng, bad=0.98),
    "unsure, where distances are as before": lambda rng: _draw(rng, gap=0.2),
    "a lens cap": lambda rng: Observation(label="bad", is_unsure=False, confidence=0.99, distance=0.01),
    "everything is far": lambda rng: Observation(label="bad", is_unsure=True, confidence=0.6, distance=9.0),
}


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
@pytest.mark.parametrize("num", [60, 200])
def test_a_shift_raises_an_alarm_within_200_pictures(shift: Draw, num: int):
    rng = random.Random(num)
    watch = Watch(_reference(_draw, num, rng))
    assert not watch.see([_draw(rng) for _ in range(500)])
    assert watch.see([shift(rng) for _ in range(200)])
    assert watch.alarm_at is not None
    assert 500 < watch.alarm_at <= 700
    assert watch.alarm_signals
    # Once.
    assert not watch.see([shift(rng) for _ in range(200)])


@pytest.mark.parametrize("num", [20, 40, 200])
def test_steady_tasks_raise_none_however_few_pictures_were_held_out(num: int):
    for seed in range(4):
        rng = random.Random(seed)
        bad, gap, labels = rng.uniform(0.02, 0.6), rng.uniform(0.3, 4.0), rng.choice([2, 3, 14])

        def draw(rng: random.Random, bad: float = bad, gap: float = gap, labels: int = labels) -> Observation:
            return _draw(rng, bad=bad, gap=gap, labels=labels)

        watch = Watch(_reference(draw, num, rng))
        watch.see([draw(rng) for _ in range(2_000)])
        assert watch.alarm_at is None


def test_pictures_of_one_part_in_a_row_count_as_about_one():
    alarms = 0
    for seed in range(20):
        rng = random.Random(seed)
        watch = Watch(_reference(_draw, 200, rng))
        watch.see([one for _ in range(500) for one in [_draw(rng)] * 10])
        alarms += watch.alarm_at is not None
    assert alarms <= 1


def test_a_camera_that_shows_one_picture_for_ever_is_found():
    rng = random.Random(1)
    watch = Watch(_reference(_draw, 200, rng))
    assert watch.see([_draw(rng)] * 10_000), "however typical it is"


def test_a_mix_of_classes_within_the_tolerance_is_no_drift():
    rng = random.Random(7)
    watch = Watch(_reference(_draw, 400, rng))
    watch.see([_draw(rng, bad=0.45) for _ in range(3_000)])
    watch.see([_draw(rng, bad=0.15) for _ in range(3_000)])
    assert watch.alarm_at is None


def test_wealth_grows_by_no_more_than_one_a_picture_where_a_share_is_at_its_bound():
    """The e-detector's promise, to the letter: the mean of its wealth is at most the number of pictures."""
    rng, num = random.Random(3), 100
    total = 0.0
    for _ in range(400):
        detector = Detector([0.3], [1.0])
        for _ in range(num):
            detector.settle([rng.random() < 0.3], 1)
        total += math.exp(detector.log_wealth(1)[0])
    assert total / 400 < num


def test_pictures_that_are_taken_in_together_count_as_one_by_one():
    """Counts of several ingresses may be added up: only a restart of a bet within a chunk is lost."""
    together, apart = Detector([0.2], [1.0]), Detector([0.2], [1.0])
    together.settle([3], 4)
    for has_mark in (1, 1, 1, 0):
        apart.settle([has_mark], 1)
    assert together.log_wealth(1) == pytest.approx(apart.log_wealth(1))


def test_a_share_that_leaves_nothing_to_bet_on_neither_alarms_nor_takes_from_the_others():
    rng = random.Random(5)
    held_out = [Observation(label=str(place % 2), is_unsure=True, confidence=0.5) for place in range(200)]
    found = Reference.of(held_out)
    assert isinstance(found, Reference)
    watch = Watch(found)
    watch.see([rng.choice(held_out) for _ in range(1_000)])
    assert watch.alarm_at is None
    assert watch.see([held_out[0]] * 200)
    assert watch.alarm_signals == ("class",)


def test_few_held_out_pictures_are_no_reference_and_the_reason_says_so():
    rng = random.Random(0)
    assert Reference.of([_draw(rng) for _ in range(19)]) == "19 held-out pictures, expected at least 20"


def test_recent_pictures_can_take_the_place_of_the_reference():
    rng = random.Random(1)
    watch = Watch(_reference(_draw, 200, rng))
    watch.see([_draw(rng, away=1.5) for _ in range(1_200)])
    assert watch.alarm_at is not None
    recent = watch.recent
    assert 500 <= recent.num <= 1_000
    anew = Watch(Reference.from_dict(recent.to_dict()))
    anew.see([_draw(rng, away=1.5) for _ in range(2_000)])
    assert anew.alarm_at is None
    assert anew.see([_draw(rng, away=0.0) for _ in range(200)])


@pytest.mark.parametrize(
    "change",
    [{"num": 0}, {"counts": [1]}, {"counts": [999] * 9}, {"counts": None}, {"classes": 3}],
)
def test_a_reference_that_was_changed_is_refused(change: dict[str, object]):
    values = _reference(_draw, 40, random.Random(2)).to_dict()
    assert Reference.from_dict(values).to_dict() == values
    with pytest.raises(ConfigError, match="drift reference"):
        Reference.from_dict({**values, **change})


def test_the_chance_of_a_false_alarm_is_stated():
    """Pictures of 50 tasks, 10,000 each, at the stated rate: one alarm in twenty such fleets."""
    assert RUN_LENGTH == 20 * 50 * 10_000
