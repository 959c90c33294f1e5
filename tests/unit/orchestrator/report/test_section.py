"""Figures of a section, against answers that are counted by hand."""

from typing import Any

import pytest

from orchestrator.report.section import make_section
from tests.unit.orchestrator.report.factory import (
    draw_part,
    make_card,
    make_held_out,
    make_record,
    make_verdict,
)


def make(card: dict[str, Any] | None = None, record: dict[str, Any] | None = None, **values: Any) -> Any:
    found = {"held_out": make_held_out(), "verdict": make_verdict(), **values}
    return make_section(card or make_card(), record or make_record(), found.pop("held_out"), **found)


def test_classes_have_their_counts_and_the_worst_is_named() -> None:
    record = make_record(confusion=[[9, 1], [4, 6]])
    values = make(record=record).values
    assert values["classes"] == [
        {"label": "good", "train": 60, "images": 10, "right": 9, "recall": 0.9},
        {"label": "scratch", "train": 20, "images": 10, "right": 6, "recall": 0.6},
    ]
    assert values["worst_class"]["label"] == "scratch"
    assert values["confused"] == [
        {"truth": "scratch", "answer": "good", "images": 4},
        {"truth": "good", "answer": "scratch", "images": 1},
    ]


def test_a_class_without_held_out_images_is_not_the_worst() -> None:
    values = make(record=make_record(confusion=[[9, 1], [0, 0]])).values
    assert values["classes"][1]["recall"] is None
    assert values["worst_class"]["label"] == "good"


def test_false_accepts_come_first_whatever_their_probability() -> None:
    section = make()
    mistakes = section.values["mistakes"]
    assert (section.values["good_label"], section.values["num_mistakes"]) == ("good", 4)
    assert section.values["num_false_accepts"] == 2
    assert [one["path"] for one in mistakes] == [f"image-{place}.png" for place in (19, 18, 9, 8)]
    assert [one["is_false_accept"] for one in mistakes] == [True, True, False, False]
    # Scores 2.9 and 0 at temperature 2: 1 / (1 + exp(-1.45)).
    assert mistakes[0]["probability"] == pytest.approx(0.81, abs=0.001)
    assert mistakes[0]["truth_probability"] == pytest.approx(0.19, abs=0.001)
    assert section.thumbnails[mistakes[0]["digest"]] == draw_part(19)


def test_right_answers_with_the_least_lead_are_near_the_threshold() -> None:
    narrow = make().values["narrow"]
    assert [one["path"] for one in narrow] == [f"image-{place}.png" for place in range(6)]
    assert narrow[0]["runner_up"] == "scratch"
    assert narrow[0]["probability"] + narrow[0]["runner_up_probability"] == pytest.approx(1.0)


def test_leaked_pictures_and_rare_classes_are_warned_of() -> None:
    record = make_record(leaked={"count": 4, "paths": ["a.png", "b.png"]}, train_counts=[100, 10])
    warnings = make(record=record).values["warnings"]
    assert "4 held-out images are trained on as well, pixel for pixel (a.png, b.png)" in warnings[0]
    assert "the largest class has 100 training images, the smallest 10" in warnings[1]


def test_what_changed_since_the_version_before() -> None:
    before = make_card(
        metrics={"accuracy": 0.75},
        config={"kind": "ship", "learning_rate": 0.05, "epochs": 30},
        data_fingerprint="e" * 64,
    )
    changes = make(before={**before, "digest": "b" * 64}).values["changes"]
    assert changes["gain"] == pytest.approx(0.05)
    assert (changes["has_same_data"], changes["has_same_backbone"]) == (False, True)
    assert changes["settings"] == [{"name": "learning_rate", "before": 0.05, "now": 0.02}]
    assert make().values["changes"] is None


def test_the_learning_curve_goes_on_from_the_version_itself() -> None:
    curve = make().values["learning_curve"]
    assert curve["probe"][-1] == {"images": 80, "accuracy": 0.7}
    assert [point["images"] for point in curve["expected"]] == [80, 160, 320]
    assert curve["expected"][0]["accuracy"] == pytest.approx(0.8)
    assert not curve["is_flat"]


def test_an_artifact_of_an_earlier_version_has_a_section_without_what_it_lacks() -> None:
    old = {"labels": ["a", "b"], "confusion": [[5, 5], [0, 10]], "history": []}
    card = make_card()
    del card["decision"]
    values = make(card, old, held_out=None).values
    assert (values["learning_curve"], values["mistakes"], values["num_mistakes"]) == (None, [], None)
    assert values["classes"][0]["train"] is None
    assert values["train_accuracy"] is None


def test_the_decision_rule_is_told_by_what_it_is_expected_to_do() -> None:
    decision = make().values["decision"]
    expected = {"share": 0.9, "low": 0.6, "high": 0.98}
    assert decision["promised"] == [{"label": "scratch", "promised": 0.99, "expected": expected}]
    assert [one["name"] for one in decision["shares"]] == ["accuracy", "unsure"]
    assert make(make_card(decision={"temperature": 1.0})).values["decision"] is None


def test_a_wide_matrix_is_told_by_its_confusions() -> None:
    labels = tuple(f"class-{number}" for number in range(21))
    values = make(record=make_record(labels), held_out=None).values
    assert values["confusion"] is None
    assert len(values["confused"]) == 10
    assert make().values["confusion"] == [[8, 2], [2, 8]]


def test_an_adapter_that_was_imported_without_images_has_a_section_without_classes() -> None:
    record = {"labels": ["good", "scratch"], "confusion": [], "source": {"format": "peft"}, "history": []}
    section = make(record=record, held_out=None)
    assert (section.values["classes"], section.values["worst_class"]) == ([], None)
