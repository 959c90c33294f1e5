"""The rule that a task is tuned with, from its images."""

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ship.backbone import Backbone, load_backbone
from ship.data import Split, TaskData
from ship.decision.fitting import fit_decision
from ship.evaluation.prediction import predict
from ship.images import read_image
from ship.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.unit.ship.factory import QUICK, make_data


def test_the_rule_is_chosen_on_the_held_out_images(backbone: Backbone, data: TaskData) -> None:
    result = tune(backbone, data, TuneConfig(**QUICK))
    found = fit_decision(backbone, result.prompt, data, result.outputs)
    again = predict(backbone, result.prompt, data.held_out.images_B3HW)
    torch.testing.assert_close(result.outputs.features_BD, again.features_BD)
    assert found.rule.max_distance == float(found.distances_B.max())
    assert found.rule.expected["far"]["false_alarm_rate"] == 1 / 19
    assert found.rule.expected["num_images"] == 18
    assert (found.rule.thresholds, found.rule.costs, found.rule.min_confidence) == ({}, None, 0.0)
    # Training images are nearer, and each class has its mean.
    train = predict(backbone, result.prompt, data.train.images_B3HW)
    assert float(found.distance.distances(train.features_BD).mean()) < float(found.distances_B.mean())
    assert len(found.distance.means_CR) == 3


def test_held_out_images_of_other_class_shares_give_frequencies(backbone: Backbone, data: TaskData) -> None:
    chosen_B = (data.held_out.labels_B == 0) | (torch.arange(18) < 6)
    unequal = replace(data, test=data.held_out.take(chosen_B))
    result = tune(backbone, unequal, TuneConfig(**QUICK))
    found = fit_decision(backbone, result.prompt, unequal, result.outputs).rule.frequencies
    # Six, two and two pictures, with half of one more; equally many are trained on.
    assert list(found.values()) == pytest.approx([6.5 / 11.5, 2.5 / 11.5, 2.5 / 11.5], abs=1e-6)


def test_copies_among_the_held_out_images_move_no_limit(backbone: Backbone, data: TaskData) -> None:
    repeated = replace(data, test=data.held_out.joined(data.held_out))
    result = tune(backbone, repeated, TuneConfig(**QUICK))
    found = fit_decision(backbone, result.prompt, repeated, result.outputs).rule
    assert (found.expected["far"]["false_alarm_rate"], found.expected["num_images"]) == (1 / 19, 36)
    # What is measured by images stays what it is.
    assert result.evaluation.right == result.evaluation.right[:18] * 2


def test_of_many_training_images_some_of_each_class_are_enough(backbone: Backbone) -> None:
    data = make_data(num_train=60, num_classes=2)
    result = tune(backbone, data, TuneConfig(**{**QUICK, "kind": "probe"}))
    all_of_them = fit_decision(backbone, result.prompt, data, result.outputs, most_images=60)
    some = [fit_decision(backbone, result.prompt, data, result.outputs, most_images=30) for _ in range(2)]
    assert not torch.equal(some[0].distance.means_CR, all_of_them.distance.means_CR)
    assert torch.equal(some[0].distance.means_CR, some[1].distance.means_CR)
    # Never fewer than ten of a class: with as many images there is nothing to leave out.
    few = make_data(num_train=20, num_classes=2)
    least = [
        fit_decision(backbone, result.prompt, few, result.outputs, most_images=most).distance.means_CR
        for most in (1, 1000)
    ]
    assert torch.equal(*least)


def load_digit_images(backbone: Backbone) -> tuple[TaskData, Tensor]:
    """A task of handwritten digits, and 40 images of further ones."""
    digits = load_digits()
    images = torch.stack(
        [
            read_image((pixels * 15.9).astype("uint8"), size=backbone.image_size, interpolation="bicubic")
            for pixels in digits.images[:260]
        ]
    )
    labels_B = torch.from_numpy(digits.target[:260]).long()

    def split(first: int, last: int) -> Split:
        paths = tuple(f"{place}.png" for place in range(first, last))
        return Split(images_B3HW=images[first:last], labels_B=labels_B[first:last], paths=paths)

    data = TaskData(
        labels=tuple(map(str, range(10))),
        train=split(0, 120),
        val=None,
        test=split(120, 220),
        fingerprint="0" * 64,
    )
    return data, images[220:]


def test_strange_pictures_are_far_more_often_than_new_ones_of_the_task() -> None:
    """Digits on the bundled backbone, a linear probe: new digits, and what is none."""
    backbone = load_backbone("bundled", "cpu")
    data, fresh = load_digit_images(backbone)
    result = tune(backbone, data, TuneConfig(kind="probe"))
    found = fit_decision(backbone, result.prompt, data, result.outputs)
    assert found.rule.max_distance is not None

    def share_far(pictures: Tensor) -> float:
        features_BD = predict(backbone, result.prompt, pictures).features_BD
        return float((found.distance.distances(features_BD) > found.rule.max_distance).double().mean())

    noise = torch.randint(0, 256, fresh.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert found.rule.expected["far"]["false_alarm_rate"] == pytest.approx(1 / 101)
    assert share_far(fresh) <= 0.1
    assert share_far(noise) >= 0.9
    assert share_far(255 - fresh) >= 0.9
    # Served in half the precision they are no farther.
    runtime = Runtime(backbone, dtype=torch.bfloat16, capacity_bytes=1 << 20)
    rows = runtime.infer_rows(fresh, [runtime.insert(result.prompt)] * len(fresh))
    assert sum(found.distance.distance(row.feature_D) > found.rule.max_distance for row in rows) <= 4
    assert share_far(fresh[..., :24].repeat(1, 1, 1, 2)) >= 0.5
