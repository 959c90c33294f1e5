"""The gate's decisions, and how often they are wrong on drawn tasks whose true accuracy is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.manifest.floors import Floors
from orchestrator.registry.gate import GateDecision, decide
from orchestrator.registry.measurement import Measurement
from ship.errors import ConfigError

DATA = "d" * 64


def bits(right: np.ndarray) -> str:
    return "".join("1" if each else "0" for each in right)


def measured(labels: np.ndarray, right: np.ndarray, probe: np.ndarray, data: str = DATA) -> Measurement:
    classes = np.unique(labels)
    return Measurement(
        accuracy=float(right.mean()),
        probe_accuracy=float(probe.mean()),
        num_images=len(labels),
        recalls=tuple((int(right[labels == c].sum()), int((labels == c).sum())) for c in classes),
        data=data,
        held_out=data,
        labels=tuple(labels.tolist()),
        right=bits(right),
        probe_right=bits(probe),
    )


def of(num_right: int, num_images: int = 100, *, probe: int | None = None, data: str = DATA) -> Measurement:
    """Two classes in turn; the first images are right."""
    order, labels = np.arange(num_images), np.arange(num_images) % 2
    return measured(labels, order < num_right, order < (num_right if probe is None else probe), data)


def test_the_first_version_that_beats_the_probe_is_champion() -> None:
    decision = decide(of(90, probe=80), None)
    assert decision.alias == "champion"
    assert "0.9000 beats the linear probe's 0.8000, and there is no champion yet" in decision.reason


def test_a_tie_with_the_probe_passes_and_says_so() -> None:
    assert decide(of(80), None) == GateDecision(
        promote=True,
        reason="Balanced accuracy 0.8000 ties with the linear probe's 0.8000, and there is no champion yet.",
    )


@pytest.mark.parametrize(("fewer", "promote"), [(1, True), (4, True), (5, False), (20, False)])
def test_one_image_less_than_the_probe_decides_nothing_and_many_do(fewer: int, promote: bool) -> None:
    decision = decide(of(80 - fewer, probe=80), None)
    assert decision.promote is promote
    assert (
        "is no worse than the linear probe" if promote else "is below the linear probe"
    ) in decision.reason
    if not promote:
        assert f"right on 0 where it errs, wrong on {fewer}" in decision.reason


def test_a_coin_flip_is_not_promoted_whatever_its_probe_did() -> None:
    decision = decide(of(30, 60, probe=23), None)
    assert not decision.promote
    assert "is not told from guessing, which gives 0.5000 for 2 classes" in decision.reason
    assert "60 held-out images" in decision.reason


def test_always_good_is_guessing() -> None:
    labels = np.array([0] * 490 + [1] * 10)
    decision = decide(measured(labels, labels == 0, labels == 0), None)
    assert not decision.promote
    assert "balanced accuracy 0.5000" in decision.reason


def test_images_of_one_class_tell_nothing_from_guessing() -> None:
    """Sixty good images and one scratch of noise, which is in training: no scratch is held out."""
    card = {"metrics": {"accuracy": 1.0, "probe_accuracy": 1.0, "num_test": 60}}
    record = {
        "confusion": [[60, 0], [0, 0]],
        "labels": ["good", "scratch"],
        "held_out": {"labels": [0] * 60, "right": "1" * 60, "probe_right": "1" * 60},
    }
    found = Measurement.read(card, record)
    assert (found.classes, found.unmeasured) == (("good",), ("scratch",))
    decision = decide(found, None)
    assert (decision.promote, decision.gate, decision.is_refusal) == (False, "guessing", True)
    assert decision.reason == (
        "It has held-out images of one class only ('good': 60), expected of two at least: whatever always "
        "answers 'good' gets all of them right. Add some of 'scratch'."
    )
    assert decide(Measurement.read(card, {}), None).promote, "earlier records do not tell"


def test_one_defect_that_was_found_may_be_a_guess() -> None:
    decision = decide(inspected(475, 1, (500, 1)), None)
    assert (decision.promote, decision.gate) == (False, "guessing")
    assert decision.reason == (
        "Its balanced accuracy 0.9750 on 501 held-out images is not told from guessing: answers that look at "
        "no picture reach it in up to 3.6% of cases, expected at most 2.5%. It needs more images of the "
        "rarest class, which has 1."
    )
    assert decide(inspected(500, 1, (500, 1)), None).promote


@pytest.mark.parametrize(("num_images", "promote"), [(4, False), (12, True)])
def test_few_images_say_little(num_images: int, promote: bool) -> None:
    assert decide(of(num_images, num_images), None).promote is promote


@pytest.mark.parametrize(
    ("num_right", "relation"), [(95, "is better than"), (90, "ties with today's"), (87, "is no worse than")]
)
def test_no_worse_than_the_champion_passes(num_right: int, relation: str) -> None:
    decision = decide(of(num_right, probe=80), of(90))
    assert decision.promote
    assert relation in decision.reason


def test_significantly_worse_than_the_champion_stays_challenger() -> None:
    decision = decide(of(80, probe=80), of(90))
    assert not decision.promote
    assert (
        "but is worse than today's champion (0.9000; right on 0 where it errs, wrong on 10" in decision.reason
    )


def test_accuracy_cannot_slide_down_in_small_steps() -> None:
    best, champion = of(95), of(91)
    assert decide(of(88, probe=80), champion).promote, "no worse than the last one"
    decision = decide(of(88, probe=80), champion, best)
    assert not decision.promote
    assert "worse than an earlier champion on the same images (0.9500" in decision.reason


@pytest.mark.parametrize(("num_right", "promote"), [(90, True), (84, True), (70, False)])
def test_on_other_data_shares_are_compared_and_that_is_said(num_right: int, promote: bool) -> None:
    decision = decide(of(num_right, probe=60), of(90, data="e" * 64))
    assert decision.promote is promote
    assert "measured on other data" in decision.reason


def inspected(good: int, defects: int, num: tuple[int, int] = (500, 25), data: str = DATA) -> Measurement:
    """Good images and a few defects, of each that many right; the linear probe answers the same."""
    labels = np.repeat([0, 1], num)
    right = np.concatenate([np.arange(num[0]) < good, np.arange(num[1]) < defects])
    return replace(measured(labels, right, right, data), classes=("good", "defect"))


OTHER_DATA = "e" * 64


def test_a_version_that_is_blind_to_defects_is_withheld_on_other_data_too() -> None:
    champion, blind = inspected(475, 23), inspected(493, 10, data=OTHER_DATA)
    assert blind.accuracy > champion.accuracy
    decision = decide(blind, champion)
    assert (decision.promote, decision.gate) == (False, "champion")
    assert decision.reason == (
        "Balanced accuracy 0.6930 (accuracy 0.9581) ties with the linear probe's 0.6930 (accuracy 0.9581), "
        "but is worse than today's champion (0.9350, accuracy 0.9486; p < 0.001). The champion was measured "
        "on other data."
    )


def test_one_that_finds_more_defects_passes_on_other_data_whatever_its_accuracy() -> None:
    champion, better = inspected(498, 8), inspected(470, 24, data=OTHER_DATA)
    assert better.accuracy < champion.accuracy
    decision = decide(better, champion)
    assert decision.promote
    assert "is better than today's champion (0.6580, accuracy 0.9638; p = 1)" in decision.reason


def test_on_other_data_the_classes_that_both_have_are_compared() -> None:
    labels = np.repeat([0, 1, 2], [500, 25, 25])
    right = np.concatenate([np.arange(500) < 480, np.arange(25) < 22, np.arange(25) < 10])
    dented = replace(measured(labels, right, right, OTHER_DATA), classes=("good", "defect", "dent"))
    decision = decide(dented, inspected(490, 22))
    assert decision.promote, "that dents are hard to find says nothing against it"
    assert (
        "balanced accuracy of the 2 classes that both have 0.9300 beside 0.9200, accuracy 0.9752"
    ) in decision.reason
    renamed = replace(inspected(493, 10, data=OTHER_DATA), classes=("good", "scratch"))
    beside = renamed.beside(inspected(475, 23))
    assert beside is not None
    assert beside.difference.is_worse, "with fewer than two of them all classes are"
    assert (beside.share, beside.other) == ("balanced accuracy", pytest.approx(0.935))


def test_a_champion_of_before_that_was_measured_on_one_class_is_compared_by_accuracy() -> None:
    labels = np.zeros(60, int)
    champion = replace(measured(labels, labels == 0, labels == 0), classes=("good",))
    decision = decide(inspected(500, 20, data=OTHER_DATA), champion)
    assert decision.promote
    assert "today's champion (accuracy 1.0000 beside 0.9905; p = 0.22)" in decision.reason


# Recalls of a version and of a champion of the same balanced accuracy.
AS_GOOD = [((0.95, 0.95), (0.95, 0.95)), ((0.90, 0.85), (0.98, 0.77)), ((0.98, 0.77), (0.90, 0.85))]


@pytest.mark.parametrize(("num_new", "num_old"), [(3, 25), (3, 3), (5, 25), (25, 3), (10, 25), (25, 25)])
def test_what_is_as_good_on_other_data_is_seldom_called_worse(num_new: int, num_old: int) -> None:
    rng = np.random.default_rng(num_new)
    for recalls in AS_GOOD:
        num_worse = 0
        for _ in range(300):
            found = [
                rng.binomial([500, num], share)
                for num, share in zip((num_new, num_old), recalls, strict=True)
            ]
            new = inspected(*found[0], (500, num_new), OTHER_DATA)
            beside = new.beside(inspected(*found[1], (500, num_old)))
            assert beside is not None
            num_worse += beside.difference.is_worse
        # One in twenty, and three standard errors of the draws.
        assert num_worse / 300 <= 0.05 + 0.038


def test_a_reason_names_the_share_that_was_tested() -> None:
    labels = np.repeat([0, 1], [500, 25])
    right = np.concatenate([np.arange(500) < 493, np.arange(25) < 10])
    probe = np.concatenate([np.arange(500) < 475, np.arange(25) < 23])
    decision = decide(measured(labels, right, probe), None)
    assert decision.reason.startswith(
        "Balanced accuracy 0.6930 (accuracy 0.9581) is below the linear probe's 0.9350 (accuracy 0.9486) on "
        "the same images (right on 18 where it errs, wrong on 13, "
    )
    unknown = replace(measured(labels, right, probe), probe_right="")
    assert "Accuracy 0.9581 beats the linear probe's 0.9486, and" in decide(unknown, None).reason


@pytest.mark.parametrize(
    ("decision", "gate", "is_refusal"),
    [
        (decide(of(90, probe=80), None), None, False),
        (decide(replace(of(90), accuracy=None), None), "unmeasured", False),
        (decide(of(90), replace(of(90), accuracy=None)), "unmeasured", False),
        (decide(of(30, 60, probe=23), None), "guessing", True),
        (decide(of(80), None, floors=Floors(accuracy=0.9)), "floors", True),
        (decide(of(60, probe=80), None), "probe", True),
        (decide(of(80), of(90)), "champion", True),
        (decide(of(88, probe=80), of(91), of(95)), "best", True),
    ],
)
def test_a_decision_names_its_gate(decision: GateDecision, gate: str | None, is_refusal: bool) -> None:
    assert (decision.gate, decision.is_refusal) == (gate, is_refusal)
    assert decision.promote == (gate is None)


@pytest.mark.parametrize("missing", ["accuracy", "probe_accuracy"])
@pytest.mark.parametrize("champion", [None, of(90)])
def test_what_is_not_known_never_promotes(missing: str, champion: Measurement | None) -> None:
    decision = decide(replace(of(99), **{missing: None}), champion)
    assert not decision.promote
    assert "is not known, so it cannot be judged" in decision.reason


NAMED = replace(of(90, probe=80), classes=("good", "scratch"), accuracy_low=0.83)


@pytest.mark.parametrize(
    ("floors", "missed"),
    [
        ({"accuracy": 0.9, "accuracy_low": 0.8, "balanced_accuracy": 0.9}, None),
        ({"recall": {"scratch": 0.9}}, None),
        ({"accuracy": 0.95}, "accuracy 0.9000, expected at least 0.9500"),
        ({"accuracy_low": 0.85}, "accuracy_low 0.8300, expected at least 0.8500"),
        ({"recall": {"scratch": 0.99}}, "recall of scratch 0.9000, expected at least 0.9900"),
        ({"recall": {"dent": 0.5}}, "recall of dent is not known, expected at least 0.5000"),
    ],
)
def test_a_version_below_a_floor_of_its_task_stays_challenger(
    floors: dict[str, object], missed: str | None
) -> None:
    decision = decide(NAMED, None, floors=Floors.from_dict(floors))
    assert decision.promote is (missed is None)
    if missed:
        assert decision.reason == f"It does not reach the task's floors: {missed}."


@pytest.mark.parametrize(
    "floors", [{"accuracy": 1.5}, {"recall": {"a": -1}}, {"recall": 0.5}, {"accuracy": "x"}]
)
def test_floors_are_shares(floors: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        Floors(**floors)
    assert Floors.from_dict(Floors(recall={"a": 0.5}).to_dict()) == Floors(recall={"a": 0.5})


def test_a_champion_without_a_number_is_a_matter_for_people() -> None:
    decision = decide(of(90), Measurement(accuracy=None, probe_accuracy=None))
    assert not decision.promote
    assert "promote by hand" in decision.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "0.9", None])
def test_what_is_no_number_in_an_artifact_is_not_known(value: object) -> None:
    assert Measurement.read({"metrics": {"accuracy": value}}, {}).accuracy is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"held_out": None, "confusion": None},
        {"held_out": {"labels": [0, 1], "right": "1"}},
        {"confusion": [[1], ["x", 2]]},
        {"confusion": [[]]},
    ],
)
def test_a_record_without_answers_leaves_the_counts(record: dict[str, object]) -> None:
    found = Measurement.read({"metrics": {"accuracy": 0.9, "probe_accuracy": 0.8, "num_test": 50}}, record)
    assert (found.labels, found.recalls, found.num_images) == ((), (), 50)
    assert decide(found, None).promote
    worse = Measurement.read({"metrics": {"accuracy": 0.5, "probe_accuracy": 0.8, "num_test": 50}}, record)
    assert not decide(worse, None).promote
    one_image = Measurement.read(
        {"metrics": {"accuracy": 0.78, "probe_accuracy": 0.8, "num_test": 50}}, record
    )
    assert decide(one_image, None).promote


def draw(rng: np.random.Generator, num_images: int, *accuracies: float) -> list[np.ndarray]:
    """Versions of the accuracies that find the same images hard: answers with a correlation of a half."""
    common = rng.normal(size=num_images)
    thresholds = [_quantile(accuracy) for accuracy in accuracies]
    noise = [rng.normal(size=num_images) for _ in accuracies]
    return [
        (math.sqrt(0.5) * common + math.sqrt(0.5) * own) < threshold
        for own, threshold in zip(noise, thresholds, strict=True)
    ]


def _quantile(share: float) -> float:
    """Of the normal distribution, by bisection."""
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / math.sqrt(2)) < share else (low, middle)
    return low


def share_promoted(
    num_images: int, candidate: float, champion: float | None, probe: float, num_draws: int = 200
) -> float:
    rng, labels = np.random.default_rng(num_images), np.arange(num_images) % 2
    promoted = 0
    for _ in range(num_draws):
        new, old, of_probe = draw(rng, num_images, candidate, champion or probe, probe)
        before = None if champion is None else measured(labels, old, of_probe)
        promoted += decide(measured(labels, new, of_probe), before).promote
    return promoted / num_draws


@pytest.mark.parametrize("num_images", [50, 100, 200, 400])
def test_a_better_version_is_withheld_in_a_tenth_of_cases_at_most(num_images: int) -> None:
    assert share_promoted(num_images, candidate=0.92, champion=0.90, probe=0.90) >= 0.90


# The difference that the gate sees in 95 of 100 cases, by number of images.
@pytest.mark.parametrize(("num_images", "worse_by"), [(50, 0.27), (100, 0.18), (200, 0.12), (400, 0.08)])
def test_a_worse_version_is_promoted_in_a_twentieth_of_cases_at_most(
    num_images: int, worse_by: float
) -> None:
    assert share_promoted(num_images, candidate=0.90 - worse_by, champion=0.90, probe=0.50) <= 0.05
    assert share_promoted(num_images, candidate=0.90 - worse_by, champion=None, probe=0.90) <= 0.05


@pytest.mark.parametrize("num_images", [50, 200])
def test_guessing_is_promoted_in_a_twentieth_of_cases_at_most(num_images: int) -> None:
    assert share_promoted(num_images, candidate=0.5, champion=None, probe=0.4) <= 0.05
