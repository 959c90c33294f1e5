"""What a rule promises is kept on fresh pictures, over many drawn tasks. All seeds are fixed."""

import math

import pytest
import torch

from ship.decision.choosing import choose_rule
from ship.decision.limits import conformal_rank
from ship.decision.rule import UNSURE
from ship.errors import ConfigError
from tests.unit.ship.decision.factory import DrawnTask, answered_as_another

NUM_TASKS, NUM_FRESH = 100, 20_000


def least_kept(num_tasks: int, share: float = 0.95) -> int:
    """Three standard deviations below the expected number: what chance alone may take away."""
    return math.floor(num_tasks * share - 3 * math.sqrt(num_tasks * share * (1 - share)))


@pytest.mark.parametrize(
    ("task", "num", "recall"),
    [
        (DrawnTask(separation=1.5), 59, 0.95),
        (DrawnTask(separation=1.5), 310, 0.99),
        (DrawnTask(separation=1.0, scale=4.0), 120, 0.9),
        (DrawnTask(separation=2.0, num_classes=6, scale=2.5), 100, 0.95),
        (DrawnTask(separation=0.5, num_classes=3), 60, 0.8),
    ],
    ids=str,
)
def test_a_promised_recall_is_kept_in_most_drawn_tasks(task: DrawnTask, num: int, recall: float) -> None:
    place = task.num_classes - 1
    counts = [20] * place + [num]
    fresh_BC, _ = task.draw([0] * place + [NUM_FRESH], seed=999)
    wrong = []
    for seed in range(NUM_TASKS):
        rule = choose_rule(task.labels, *task.draw(counts, seed), recalls={task.labels[place]: recall})
        wrong.append(answered_as_another(rule, task.labels, fresh_BC, place))
    assert sum(share <= 1 - recall for share in wrong) >= least_kept(NUM_TASKS)
    # And no more is given away for it than the number of pictures asks for.
    assert sorted(wrong)[NUM_TASKS // 2] > 0.15 * (1 - recall)


def test_all_promises_of_a_rule_are_kept_together() -> None:
    task, num_tasks = DrawnTask(separation=1.2, num_classes=3), 60
    recalls = {"class-0": 0.9, "class-1": 0.9, "class-2": 0.9}
    fresh_BC, fresh_B = task.draw([500] * 3, seed=999)
    num_kept = 0
    for seed in range(num_tasks):
        rule = choose_rule(task.labels, *task.draw([60] * 3, seed), recalls=recalls)
        answers = [rule.decide(task.labels, logits_C).label for logits_C in fresh_BC.tolist()]
        kept = [
            sum(
                answer not in (task.labels[place], UNSURE)
                for answer, truth in zip(answers, fresh_B.tolist(), strict=True)
                if truth == place
            )
            # One in ten of 500, and three deviations of that number.
            <= 50 + 3 * math.sqrt(500 * 0.1 * 0.9)
            for place in range(3)
        ]
        num_kept += all(kept)
    assert num_kept >= least_kept(num_tasks)


@pytest.mark.parametrize(("num", "rate"), [(20, 0.01), (98, 0.01), (150, 0.01), (400, 0.05)])
def test_pictures_of_the_task_are_far_as_often_as_is_stated(num: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(num)
    logits_BC, labels_B = DrawnTask(separation=2.0).draw([num // 2] * 2, seed=0)
    shares, stated = [], 0.0
    for _ in range(100):
        distances_B = torch.randn(num, generator=generator).exp()
        rule = choose_rule(("a", "b"), logits_BC, labels_B, distances_B, false_alarm_rate=rate)
        stated = rule.expected["far"]["false_alarm_rate"]
        assert rule.max_distance is not None
        # The share of such numbers beyond the limit, exactly.
        shares.append(1 - 0.5 * (1 + math.erf(math.log(rule.max_distance) / math.sqrt(2))))
    assert stated <= max(rate, 1 / (num + 1))
    assert stated == (num + 1 - conformal_rank(num, rate)) / (num + 1)
    mean, deviation = sum(shares) / len(shares), torch.tensor(shares).std().item() / math.sqrt(len(shares))
    assert abs(mean - stated) <= 3 * deviation


@pytest.mark.parametrize(
    ("num", "recall", "needed", "best"),
    [(0, 0.9, 29, "none"), (10, 0.99, 299, "0.741"), (58, 0.95, 59, "0.949"), (298, 0.99, 299, "0.989")],
)
def test_a_promise_beyond_the_images_is_refused_with_what_can_be_promised(
    num: int, recall: float, needed: int, best: str
) -> None:
    task, labels = DrawnTask(separation=2.0), ("good", "scratch")
    scores = task.draw([30, num], seed=0)
    with pytest.raises(ConfigError) as caught:
        choose_rule(labels, *scores, recalls={"scratch": recall})
    assert str(caught.value) == (
        f"a recall of {recall:g} for 'scratch' cannot be promised with {num} held-out images of it: that "
        f"takes {needed}; with {num} at most {best} can be promised"
    )
    # What it offers is promised, and so is what was asked for with as many images as it names.
    if num:
        assert choose_rule(labels, *scores, recalls={"scratch": float(best)}).recalls == {
            "scratch": float(best)
        }
    assert choose_rule(labels, *task.draw([30, needed], seed=0), recalls={"scratch": recall}).thresholds


def test_two_promises_need_more_images_than_one_and_say_so() -> None:
    scores = DrawnTask(separation=2.0).draw([300, 300], seed=0)
    choose_rule(("good", "scratch"), *scores, recalls={"scratch": 0.99})
    with pytest.raises(ConfigError, match="that takes 366"):
        choose_rule(("good", "scratch"), *scores, recalls={"scratch": 0.99, "good": 0.99})


@pytest.mark.parametrize(
    ("wishes", "what"),
    [
        ({"recalls": {"dent": 0.9}}, "unknown label 'dent': the task has good, scratch"),
        ({"recalls": {"scratch": 1.0}}, "recall of 'scratch': expected a number above 0, below 1, got 1.0"),
        ({"good": "ok"}, "unknown label 'ok'"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate: expected"),
        ({"min_confidence": 1.5}, "min_confidence: expected"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(wishes: dict, what: str) -> None:
    scores = DrawnTask(separation=2.0).draw([30, 30], seed=0)
    with pytest.raises(ConfigError, match=what):
        choose_rule(("good", "scratch"), *scores, **wishes)
