"""Two versions on the same images: counts, names, and a test that calls no coin flip a difference."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.errors import RegistryError
from orchestrator.registry.comparison import compare_versions
from orchestrator.registry.evidence import Evidence
from ship.artifact.card import PromptCard
from ship.artifact.held_out import HeldOut
from ship.settings.config import TuneConfig
from ship.settings.view import View
from tests.unit.orchestrator.store.factory import make_key

LABELS = ("good", "scratch")


def make_evidence(
    version: int,
    labels_B: list[int],
    answers_B: list[int],
    *,
    labels: tuple[str, ...] = LABELS,
    data: str = "images",
    **changes: Any,
) -> Evidence:
    """A version that gives these answers."""
    scores = torch.nn.functional.one_hot(torch.tensor(answers_B), len(labels)).tolist()
    answers = HeldOut(
        labels=labels,
        paths=tuple(f"{place}.png" for place in range(len(labels_B))),
        digests=tuple(f"{place:032x}" for place in range(len(labels_B))),
        labels_B=tuple(labels_B),
        logits_BC=tuple(map(tuple, scores)),
        num_images=len(labels_B),
    )
    card = PromptCard(
        task="caps",
        task_key=None,
        backbone={},
        config=TuneConfig(),
        level_starts=(0,),
        view=View(),
        labels=labels,
        metrics={},
        data_fingerprint=make_key(data),
        probe={},
        files={},
    )
    return Evidence(
        version=version,
        digest=make_key(str(version)),
        card=card,
        rule=card.decision,
        answers=replace(answers, **changes),
    )


TRUTH = [0, 1] * 20
WRONG = [1 - label for label in TRUTH]


def mixed(num_wrong: int) -> list[int]:
    """Answers of which the first are wrong."""
    return [*WRONG[:num_wrong], *TRUTH[num_wrong:]]


def test_what_is_fixed_and_broken_is_named_and_counted() -> None:
    first = make_evidence(1, TRUTH, mixed(6))
    second = make_evidence(2, TRUTH, [*WRONG[:1], *TRUTH[1:38], *WRONG[38:]])
    result = compare_versions("caps", first, second)
    assert [row["path"] for row in result["fixed"]] == ["1.png", "2.png", "3.png", "4.png", "5.png"]
    expected = {"path": "1.png", "label": "scratch", "answers": ["good", "scratch"], "places": [1, 1]}
    assert result["fixed"][0] == expected
    assert [row["path"] for row in result["both_wrong"]] == ["0.png"]
    assert [row["path"] for row in result["broken"]] == ["38.png", "39.png"]
    assert (result["num_both_right"], result["num_both_wrong"]) == (32, 1)
    assert result["num_images"] == 40
    assert (result["num_fixed"], result["num_broken"]) == (5, 2)
    one, other = result["versions"]
    assert (one["version"], one["accuracy"]["num"], one["accuracy"]["share"]) == (1, 34, 0.85)
    assert (other["version"], other["accuracy"]["num"], other["balanced_accuracy"]) == (2, 37, 0.925)
    assert one["accuracy"]["low"] < 0.85 < one["accuracy"]["high"]
    # Of classes of one size it is McNemar's exact test: 5 of 7 are fixed.
    assert result["p"] == pytest.approx(2 * (21 + 7 + 1) / 2**7)
    assert not result["is_significant"]
    assert result["outcome"].startswith(
        "No significant difference between versions 1 and 2 on the same 40 images: the second fixes 5 and "
        "breaks 2 ("
    )


@pytest.mark.parametrize(("before", "after", "word"), [(10, 2, "better"), (2, 10, "worse")])
def test_a_difference_that_no_chance_explains(before: int, after: int, word: str) -> None:
    result = compare_versions(
        "caps", make_evidence(3, TRUTH, mixed(before)), make_evidence(4, TRUTH, mixed(after))
    )
    assert result["is_significant"]
    assert result["p"] == pytest.approx(2 / 2**8)
    fixed, broken = (8, 0) if word == "better" else (0, 8)
    assert result["outcome"] == (
        f"Version 4 is significantly {word} than version 3 on the same 40 images: it fixes {fixed} and "
        f"breaks {broken} (paired test of balanced accuracies, two-sided p = 0.0078)."
    )


def test_versions_that_are_alike() -> None:
    result = compare_versions("caps", make_evidence(1, TRUTH, mixed(3)), make_evidence(2, TRUTH, mixed(3)))
    assert (result["fixed"], result["broken"], result["p"]) == ([], [], 1.0)
    assert result["outcome"] == "Version 2 is right and wrong on the same 40 images as version 1 is."


def test_of_versions_that_are_no_better_few_are_called_different() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = [0, 1, 0] * 30
    called = 0
    for _ in range(200):
        flips = torch.rand(2, len(truth), generator=generator) < 0.15
        one, other = (
            [1 - label if flip else label for label, flip in zip(truth, row.tolist(), strict=True)]
            for row in flips
        )
        called += compare_versions("caps", make_evidence(1, truth, one), make_evidence(2, truth, other))[
            "is_significant"
        ]
    # 5% of 200, and three standard deviations.
    assert called <= 10 + 3 * 3.1


def test_labels_are_compared_by_name() -> None:
    first = make_evidence(1, TRUTH, mixed(3))
    swapped = make_evidence(2, WRONG, [1 - answer for answer in mixed(3)], labels=LABELS[::-1])
    assert compare_versions("caps", first, swapped)["outcome"].startswith("Version 2 is right and wrong on")


def test_images_are_the_same_by_data_or_by_pixels() -> None:
    first = make_evidence(1, TRUTH, mixed(3))
    # Other training images, the same held-out ones but for two: one is new, one was drawn anew.
    digests = ("f" * 32, *first.answers.digests[1:])
    paths = (*first.answers.paths[:-1], "new.png")
    second = make_evidence(2, TRUTH, mixed(0), data="more", digests=digests, paths=paths)
    result = compare_versions("caps", first, second)
    assert result["num_images"] == 38
    assert [row["path"] for row in result["fixed"]] == ["1.png", "2.png"]
    assert [one["num_answered"] for one in result["versions"]] == [40, 40]
    # Another view or input size gives other pixels of the same images.
    zoomed = make_evidence(2, TRUTH, mixed(0), digests=("e" * 32,) * 40)
    assert compare_versions("caps", first, zoomed)["num_images"] == 40
    other_data = replace(zoomed, card=replace(zoomed.card, data_fingerprint=make_key("other")))
    assert compare_versions("caps", first, other_data, is_same_source=True)["num_images"] == 40
    with pytest.raises(RegistryError, match=r"no held-out image in common.*`ship compare caps 1 2 DATA`"):
        compare_versions("caps", first, other_data)
    # Other training images as well, and the record tells that the held-out ones are the same.
    told, same = replace(first, held_out="a" * 64), replace(other_data, held_out="a" * 64)
    assert compare_versions("caps", told, same)["num_images"] == 40
    with pytest.raises(RegistryError, match="no held-out image in common"):
        compare_versions("caps", told, replace(same, held_out="b" * 64))


def test_an_image_whose_label_was_corrected_is_left_out() -> None:
    first = make_evidence(1, TRUTH, mixed(3))
    second = make_evidence(2, [1, *TRUTH[1:]], mixed(3), data="corrected")
    assert compare_versions("caps", first, second)["num_images"] == 39
