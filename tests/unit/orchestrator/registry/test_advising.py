"""Verdicts on versions: what a withheld one needs, from made-up measurements and learning curves."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.manifest.floors import Floors
from orchestrator.registry.advice import Advice
from orchestrator.registry.advising import TuningFacts, advise
from orchestrator.registry.gate import GateDecision, decide
from orchestrator.registry.measurement import Measurement, balanced_low
from ship.evaluation.accuracy import wilson_interval
from ship.evaluation.learning_curve import LearningCurve


def measured(*recalls: tuple[int, int], probe: float | None = None) -> Measurement:
    """Classes ``a``, ``b`` and so on, with right and all images each."""
    right, number = sum(found for found, _ in recalls), sum(all_ for _, all_ in recalls)
    labels = [label for label, (_, all_) in enumerate(recalls) for _ in range(all_)]
    answers = "".join("1" * found + "0" * (all_ - found) for found, all_ in recalls)
    return Measurement(
        accuracy=right / number,
        probe_accuracy=right / number if probe is None else probe,
        num_images=number,
        accuracy_low=right / number - 0.1,
        recalls=recalls,
        classes=tuple("abcdefgh"[: len(recalls)]),
        labels=tuple(labels),
        right=answers,
        probe_right=answers,
    )


def curve(*accuracies: float, number: int = 100) -> LearningCurve | None:
    return LearningCurve.fit(list(zip((number // 4, number // 2, number), accuracies, strict=True)), 1000)


def judge(measurement: Measurement, facts: TuningFacts, **floors: object) -> Advice:
    wanted = Floors(**floors)
    return advise(decide(measurement, None, floors=wanted), measurement, facts, wanted)


RISING = TuningFacts(curve=curve(0.5, 0.6, 0.7), num_train=100, train_accuracy=1.0)
FLAT = TuningFacts(curve=curve(0.6, 0.6, 0.6), num_train=100, train_accuracy=1.0)


def test_a_promoted_version_serves() -> None:
    assert judge(measured((45, 50), (40, 50)), FLAT) == Advice(kind="serves")


def test_a_probe_that_serves_in_a_prompts_place_says_why() -> None:
    record: dict[str, Any] = {
        "instead_of": {"settings": {"kind": "lora"}, "accuracy": 0.5, "cause": "training collapsed"}
    }
    found = judge(measured((45, 50), (40, 50)), TuningFacts.read({"metrics": {}}, record))
    assert found.kind == "serves"
    assert found.text == (
        "it is the linear probe, for the tuned lora prompt is significantly worse (accuracy 0.5000): "
        "training collapsed"
    )
    record["instead_of"]["balanced_accuracy"] = 0.4
    assert "worse (balanced accuracy 0.4000, accuracy 0.5000): " in TuningFacts.read({}, record).replaced


def test_a_flat_curve_of_few_images_is_no_verdict_on_the_backbone() -> None:
    few = replace(FLAT, num_train=24)
    found = judge(measured((150, 300), (150, 300)), few)
    assert (found.kind, found.split, found.num_images) == ("needs-data", "training", 16)


def test_too_few_held_out_images_are_counted_by_the_interval() -> None:
    few = measured((4, 5), (3, 4))
    found = judge(few, FLAT)
    assert (found.kind, found.gate, found.split, found.of_class) == (
        "needs-data",
        "guessing",
        "held-out",
        "b",
    )
    assert "above all of 'b', which has 4" in found.text
    assert found.num_images is not None
    factor = 1 + found.num_images / 9
    assert balanced_low([(factor * 4, factor * 5), (factor * 3, factor * 4)]) > 0.5
    assert balanced_low([(4, 5), (3, 4)]) <= 0.5


def test_held_out_images_of_one_class_ask_for_some_of_another() -> None:
    found = judge(replace(measured((60, 60)), unmeasured=("b", "c")), FLAT)
    assert (found.kind, found.gate, found.split, found.of_class) == (
        "needs-data",
        "guessing",
        "held-out",
        "b",
    )
    assert found.text == "add held-out images of 'b': there are none"
    assert judge(measured((60, 60)), FLAT).text == "add held-out images of another class: there are none"


def test_guessing_on_many_images_needs_another_backbone_where_the_curve_is_flat() -> None:
    found = judge(measured((155, 300), (150, 300)), FLAT)
    assert (found.kind, found.gate, found.num_images) == ("needs-backbone", "guessing", None)
    assert "twice the training images would give about 0.508" in found.text


def test_guessing_needs_training_images_where_the_curve_rises() -> None:
    found = judge(measured((155, 300), (150, 300)), RISING)
    assert (found.kind, found.split, found.of_class) == ("needs-data", "training", "b")
    assert found.num_images is not None
    law = RISING.curve
    assert law is not None
    reached = law.through(305 / 600).accuracy(100 + found.num_images)
    assert reached == pytest.approx(0.55, abs=0.002), "the least that 600 images tell from guessing"


def test_what_cannot_even_learn_its_training_images_needs_another_backbone() -> None:
    found = judge(measured((155, 300), (150, 300)), replace(RISING, train_accuracy=0.52))
    assert found.kind == "needs-backbone"
    assert "training images are answered with 0.520 only" in found.text


def test_without_a_curve_few_training_images_are_too_few() -> None:
    found = judge(measured((150, 300), (150, 300)), TuningFacts(num_train=6))
    assert (found.kind, found.split, found.num_images) == ("needs-data", "training", 34)
    assert judge(measured((150, 300), (150, 300)), TuningFacts(num_train=60)).kind == "needs-backbone"


def test_a_recall_that_is_missed_asks_for_images_of_its_class() -> None:
    found = judge(measured((95, 100), (80, 100)), RISING, recall={"b": 0.85})
    assert (found.kind, found.gate, found.split, found.of_class) == ("needs-data", "floors", "training", "b")
    law = RISING.curve
    assert law is not None
    assert law.through(0.8).accuracy(100 + found.num_images) == pytest.approx(0.85, abs=0.001)


def test_a_floor_beyond_the_curve_asks_for_another_backbone() -> None:
    assert judge(measured((95, 100), (80, 100)), FLAT, recall={"b": 0.85}).kind == "needs-backbone"
    assert judge(measured((95, 100), (80, 100)), RISING, accuracy=0.999).kind == "needs-backbone"


def test_of_several_floors_the_hardest_counts() -> None:
    found = judge(measured((90, 100), (80, 100)), RISING, recall={"a": 0.91, "b": 0.88})
    assert (found.kind, found.of_class) == ("needs-data", "b")


def test_an_interval_that_is_too_wide_asks_for_held_out_images() -> None:
    found = judge(measured((45, 50), (45, 50)), FLAT, accuracy_low=0.85)
    assert (found.kind, found.split) == ("needs-data", "held-out")
    assert found.num_images is not None
    number = 100 + found.num_images
    assert wilson_interval(round(0.9 * number), number)[0] >= 0.85


def test_a_share_that_an_older_artifact_does_not_record_is_no_lack_of_data() -> None:
    old = replace(measured((95, 100), (90, 100)), accuracy_low=None)
    found = judge(old, FLAT, accuracy_low=0.5)
    assert (found.kind, found.gate) == ("withheld", "floors")
    assert found.text == "its accuracy_low is not on record: tune the task again"


def test_the_recall_of_a_class_without_held_out_images_asks_for_some() -> None:
    found = judge(measured((95, 100), (90, 100)), FLAT, recall={"c": 0.5})
    assert (found.kind, found.split, found.of_class) == ("needs-data", "held-out", "c")


@pytest.mark.parametrize("gate", ["probe", "champion", "best", "older", "unmeasured"])
def test_another_gate_withholds(gate: str) -> None:
    decision = GateDecision(promote=False, reason="Worse.", gate=gate)
    assert advise(decision, measured((9, 10)), FLAT) == Advice(kind="withheld", gate=gate)


def test_advice_is_read_back_from_its_tag_and_nothing_else_is() -> None:
    advice = judge(measured((4, 5), (3, 4)), FLAT)
    assert Advice.from_json(advice.to_json()) == advice
    for text in (None, "", "[]", "{}", "7", '{"kind": "wins"}', '{"kind": "serves", "x": 1}', "{"):
        assert Advice.from_json(text) is None


def test_evidence_of_an_older_or_odd_record_is_empty() -> None:
    assert TuningFacts.read({}, {}) == TuningFacts()
    for record in ({"learning_curve": 7}, {"learning_curve": [[1]]}, {"history": [7]}):
        assert TuningFacts.read({"metrics": {}}, record) == TuningFacts()
    found = TuningFacts.read(
        {"metrics": {"num_train": 40, "num_test": 10}},
        {"learning_curve": [[10, 0.5], [20, 0.6], [40, 0.7]], "history": [{"train_accuracy": 0.9}]},
    )
    assert (found.num_train, found.train_accuracy) == (40, 0.9)
    assert found.curve == LearningCurve.fit([(10, 0.5), (20, 0.6), (40, 0.7)], 10)
