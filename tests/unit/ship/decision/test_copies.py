"""Copies of a held-out picture are one picture: what is promised counts it once."""

import pytest
import torch
from torch import Tensor

from ship.decision.choosing import choose_rule
from ship.errors import ConfigError
from tests.unit.ship.decision.factory import DrawnTask, answered_as_another

TASK = DrawnTask(separation=1.5)
RECALLS = {"class-1": 0.95}


def repeat(scores: tuple[Tensor, Tensor], times: int) -> tuple[Tensor, Tensor, list[str]]:
    """Scores and classes of pictures that are each there several times, and the pictures' digests."""
    logits_BC, labels_B = scores
    digests = [f"{place:032x}" for place in range(len(labels_B))] * times
    return logits_BC.repeat(times, 1), labels_B.repeat(times), digests


def test_one_picture_many_times_promises_nothing() -> None:
    good_BC, good_B = TASK.draw([59, 0], 0)
    bad_BC, bad_B = TASK.draw([0, 1], 1)
    scores = torch.cat([good_BC, bad_BC.repeat(59, 1)]), torch.cat([good_B, bad_B.repeat(59)])
    digests = [*(f"{place:032x}" for place in range(59)), *["f" * 32] * 59]
    choose_rule(TASK.labels, *scores, recalls=RECALLS)
    with pytest.raises(ConfigError) as caught:
        choose_rule(TASK.labels, *scores, recalls=RECALLS, digests=digests)
    assert str(caught.value) == (
        "a recall of 0.95 for 'class-1' cannot be promised with 1 held-out images of it, without 58 copies: "
        "that takes 59; with 1 at most 0.05 can be promised"
    )


@pytest.mark.parametrize("times", [2, 5])
def test_copies_move_neither_threshold_nor_limit_of_the_distance(times: int) -> None:
    scores = TASK.draw([40, 120], 0)
    distances_B = torch.rand(160, generator=torch.Generator().manual_seed(0)).double()
    wishes = {"recalls": RECALLS, "false_alarm_rate": 0.05, "temperature": 1.0}
    alone = choose_rule(TASK.labels, *scores, distances_B, **wishes)
    logits_BC, labels_B, digests = repeat(scores, times)
    repeated = choose_rule(
        TASK.labels, logits_BC, labels_B, distances_B.repeat(times), **wishes, digests=digests
    )
    assert (repeated.thresholds, repeated.max_distance) == (alone.thresholds, alone.max_distance)
    rates = [rule.expected["far"]["false_alarm_rate"] for rule in (alone, repeated)]
    assert rates[0] == rates[1]
    assert repeated.expected["num_images"] == 160 * times


def test_no_image_is_decided_by_a_rule_that_was_chosen_on_its_copy() -> None:
    logits_BC, labels_B, digests = repeat(TASK.draw([5, 5], 0), 4)
    distances_B = (torch.arange(10) + 1.0).repeat(4)
    found = choose_rule(TASK.labels, logits_BC, labels_B, distances_B, digests=digests).expected
    # The farthest picture is beyond the others, all four times, and figures still count every image.
    assert (found["far"]["num"], found["far"]["of"]) == (4, 40)


def test_a_promise_is_kept_where_pictures_are_there_five_times() -> None:
    """Counted as 300 pictures, 60 would promise 0.99."""
    fresh_BC, _ = TASK.draw([0, 20_000], seed=999)
    wrong = []
    for seed in range(40):
        logits_BC, labels_B, digests = repeat(TASK.draw([20, 60], seed), 5)
        rule = choose_rule(
            TASK.labels, logits_BC, labels_B, recalls=RECALLS, digests=digests, cross_fits=False
        )
        wrong.append(answered_as_another(rule, TASK.labels, fresh_BC, 1))
    # 95 in 100, less three standard deviations of the number of 40.
    assert sum(share <= 0.05 for share in wrong) >= 34


def test_a_picture_in_two_classes_counts_for_each() -> None:
    logits_BC, labels_B = TASK.draw([59, 59], 0)
    digests = [f"{place % 59:032x}" for place in range(118)]
    rule = choose_rule(TASK.labels, logits_BC, labels_B, recalls=RECALLS, digests=digests, cross_fits=False)
    assert rule.recalls == RECALLS


def test_copies_of_one_picture_alone_are_measured_as_one_image() -> None:
    rule = choose_rule(("a", "b"), torch.ones(4, 2), [0] * 4, torch.ones(4), digests=["0" * 32] * 4)
    assert rule.expected == {
        "num_images": 4,
        "cross_fitted": False,
        "far": {"asked_rate": 0.01, "false_alarm_rate": 0.5},
    }


def test_without_copies_digests_change_nothing() -> None:
    logits_BC, labels_B, digests = repeat(TASK.draw([30, 70], 0), 1)
    found = [choose_rule(TASK.labels, logits_BC, labels_B, digests=given) for given in (None, digests)]
    assert found[0] == found[1]
