"""Reports on answers: each number is counted again from the scores."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from ship.artifact.held_out import HeldOut
from ship.artifact.report import report_answers
from ship.decision.mistakes import find_good_label
from ship.decision.rule import DecisionRule
from ship.errors import ConfigError
from ship.evaluation.accuracy import calibration_error

LABELS = ("dent", "good", "scratch")


def draw_answers(num_images: int = 60, labels: tuple[str, ...] = LABELS) -> HeldOut:
    """Answers of which about a third are wrong."""
    generator = torch.Generator().manual_seed(0)
    labels_B = torch.randint(0, len(labels), (num_images,), generator=generator)
    noise_BC = torch.randn(num_images, len(labels), generator=generator)
    logits_BC = noise_BC + 1.5 * torch.nn.functional.one_hot(labels_B, len(labels))
    return HeldOut(
        labels=labels,
        paths=tuple(f"{number}.png" for number in range(num_images)),
        digests=tuple(f"{number:032x}" for number in range(num_images)),
        labels_B=tuple(labels_B.tolist()),
        logits_BC=tuple(map(tuple, logits_BC.tolist())),
        probe_logits_BC=tuple(map(tuple, (-logits_BC).tolist())),
        distances_B=tuple(float(number) for number in range(num_images)),
        num_images=num_images,
    )


def test_figures_are_counted_from_the_scores() -> None:
    answers = draw_answers()
    report = report_answers(answers, DecisionRule())
    truth = [LABELS[label] for label in answers.labels_B]
    said = [LABELS[row.index(max(row))] for row in answers.logits_BC]
    counts = Counter(zip(truth, said, strict=True))
    num_right = sum(a == b for a, b in zip(truth, said, strict=True))
    assert (report["accuracy"]["num"], report["accuracy"]["of"]) == (num_right, 60)
    assert report["accuracy"]["share"] == num_right / 60
    assert report["confusion"] == [[counts[a, b] for b in LABELS] for a in LABELS]
    for name in LABELS:
        recall = report["recall"][name]
        assert recall["share"] == counts[name, name] / truth.count(name)
        assert recall["low"] < recall["share"] < recall["high"]
    assert report["balanced_accuracy"] == pytest.approx(
        sum(report["recall"][name]["share"] for name in LABELS) / 3
    )
    assert report["good"] == "good"
    assert report["escapes"]["num"] == counts["dent", "good"] + counts["scratch", "good"]
    assert report["false_rejects"]["num"] == counts["good", "dent"] + counts["good", "scratch"]
    assert (report["num_images"], report["num_kept"]) == (60, 60)
    assert len(report["mistakes"]) == 60 - num_right > 5


def test_mistakes_are_the_wrong_answers_false_accepts_first_then_by_certainty() -> None:
    answers = draw_answers()
    mistakes = report_answers(answers, DecisionRule())["mistakes"]
    for one in mistakes:
        row = answers.logits_BC[one["place"]]
        total = sum(map(math.exp, row))
        truth = answers.labels_B[one["place"]]
        assert one["label"] == LABELS[truth] != one["answer"] == LABELS[row.index(max(row))]
        assert one["probability"] == pytest.approx(math.exp(max(row)) / total)
        assert one["label_probability"] == pytest.approx(math.exp(row[truth]) / total)
        assert one["probe_answer"] == LABELS[row.index(min(row))]
        assert one["is_false_accept"] == (one["answer"] == "good")
        assert one["decision"] == one["answer"]
        assert (one["path"], one["digest"]) == (f"{one['place']}.png", f"{one['place']:032x}")
    order = [(not one["is_false_accept"], -one["probability"]) for one in mistakes]
    assert order == sorted(order)
    assert len({one["is_false_accept"] for one in mistakes}) == 2


def test_the_good_class_is_told_by_its_name_or_named() -> None:
    named = replace(draw_answers(), labels=("a", "b", "c"))
    assert report_answers(named, DecisionRule())["escapes"] is None
    assert not any(one["is_false_accept"] for one in report_answers(named, DecisionRule())["mistakes"])
    report = report_answers(named, DecisionRule(), "c")
    assert report["mistakes"][0]["answer"] == "c"
    with pytest.raises(ConfigError, match="good label 'd': expected one of a, b, c"):
        report_answers(named, DecisionRule(), "d")


@pytest.mark.parametrize(
    ("labels", "good"),
    [
        (("Good", "bad"), "Good"),
        (("defect", "OK"), "OK"),
        (("pass", "fail"), "pass"),
        (("normal", "crack"), "normal"),
        (("good", "ok", "bad"), None),
        (("goods", "bad"), None),
    ],
)
def test_names_of_the_good_class(labels: tuple[str, ...], good: str | None) -> None:
    assert find_good_label(labels) == good


def test_the_rule_calibrates_and_decides() -> None:
    answers = draw_answers()
    rule = DecisionRule(temperature=3.0, min_confidence=0.5, max_distance=49.5)
    report = report_answers(answers, rule)
    raw = report_answers(answers, DecisionRule())
    assert report["confusion"] == raw["confusion"]
    assert report["decision"]["far"]["num"] == 10
    unsure = sum(
        rule.decide(LABELS, row, place).because is not None for place, row in enumerate(answers.logits_BC)
    )
    assert report["decision"]["unsure"]["num"] == unsure > 10
    assert report["decision"]["rule"]["temperature"] == 3.0
    by_place = {one["place"]: one for one in raw["mistakes"]}
    for one in report["mistakes"]:
        assert one["probability"] < by_place[one["place"]]["probability"]
        assert (one["because"] == "far") == (one["place"] >= 50)
    assert report["calibration_error"] != raw["calibration_error"]


def test_calibration_is_measured_with_the_rules_frequencies() -> None:
    answers = draw_answers()
    rule = DecisionRule(temperature=3.0, frequencies={label: 0.1 * (1 + i) for i, label in enumerate(LABELS)})
    report, plain = report_answers(answers, rule), report_answers(answers, DecisionRule(temperature=3.0))
    natural = [rule.natural_probabilities(answers.labels, row) for row in answers.logits_BC]
    expected = calibration_error(torch.tensor(natural).log(), torch.tensor(answers.labels_B))
    assert report["calibration_error"] == pytest.approx(expected) != plain["calibration_error"]
    # What the probabilities are is the same.
    assert report["mistakes"] == plain["mistakes"]


def test_the_narrowest_answers_are_right_ones_with_rising_leads() -> None:
    answers = draw_answers()
    narrowest = report_answers(answers, DecisionRule())["narrowest"]
    wrong = {one["place"] for one in report_answers(answers, DecisionRule())["mistakes"]}
    leads = [math.log(one["probability"] / one["next_probability"]) for one in narrowest]
    assert len(narrowest) == 16
    assert not wrong & {one["place"] for one in narrowest}
    assert all(0 <= a <= b for a, b in pairwise(leads))
    others = set(range(60)) - wrong - {one["place"] for one in narrowest}
    for place in others:
        first, second, _ = sorted(answers.logits_BC[place], reverse=True)
        assert first - second >= leads[-1] - 1e-6


def test_a_class_without_images_has_no_recall() -> None:
    answers = draw_answers()
    of_two = [place for place, label in enumerate(answers.labels_B) if label != 0]
    few = replace(
        answers,
        paths=tuple(answers.paths[place] for place in of_two),
        digests=tuple(answers.digests[place] for place in of_two),
        labels_B=tuple(answers.labels_B[place] for place in of_two),
        logits_BC=tuple(answers.logits_BC[place] for place in of_two),
        probe_logits_BC=None,
        distances_B=None,
    )
    report = report_answers(few, DecisionRule(max_distance=1.0))
    assert set(report["recall"]) == {"good", "scratch"}
    assert report["decision"]["far"]["num"] == 0
    assert report["mistakes"][0]["probe_answer"] is None
    assert (report["num_images"], report["num_kept"]) == (60, len(of_two))
