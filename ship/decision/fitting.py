"""The decision rule that a task is tuned with: calibrated, and ``unsure`` where a picture is far.

Shapes: B held-out images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.data import TaskData
from ship.decision.choosing import choose_rule
from ship.decision.distance import DistanceModel
from ship.decision.rule import DecisionRule
from ship.evaluation.prediction import Outputs, predict
from ship.method.prompts import Prompt

__all__ = ["FittedDecision", "fit_decision"]

# Training images that the distance is fitted to: more of a class hardly move its mean, and of many classes a
# few of each tell the covariance, which they share.
_MOST_IMAGES, _MOST_PER_CLASS, _FEW_PER_CLASS = 4000, 200, 10


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedDecision:
    """A decision rule with its distance.

    Attributes:
        rule: The rule.
        distance: Distance from the training images.
        distances_B: Distances of the held-out images, float32.
    """

    rule: DecisionRule
    distance: DistanceModel
    distances_B: Tensor


def fit_decision(
    backbone: Backbone,
    prompt: Prompt,
    data: TaskData,
    held_out: Outputs,
    *,
    most_images: int = _MOST_IMAGES,
) -> FittedDecision:
    """Fit the distance to the training images, and choose the rule on the held-out ones.

    Args:
        backbone: The frozen network.
        prompt: The tuned prompt.
        data: Images and labels that it was tuned with.
        held_out: Scores and features of the held-out images.
        most_images: Training images to run, of many; more where that were too few of a class.
    """
    share = max(_FEW_PER_CLASS, min(_MOST_PER_CLASS, most_images // len(data.labels)))
    chosen_B = _choose(data.train.labels_B, share)
    train = predict(backbone, prompt, data.train.images_B3HW[chosen_B])
    distance = DistanceModel.fit(train.features_BD, data.train.labels_B[chosen_B])
    distances_B = distance.distances(held_out.features_BD)
    rule = choose_rule(data.labels, held_out.logits_BC, data.held_out.labels_B, distances_B)
    return FittedDecision(rule=rule, distance=distance, distances_B=distances_B)


def _choose(labels_B: Tensor, most: int) -> Tensor:
    """Places of at most some images of each class, in order; a fixed seed draws them."""
    drawn_B = torch.randperm(len(labels_B), generator=torch.Generator().manual_seed(0))
    kept: list[int] = []
    numbers: dict[int, int] = {}
    for place, label in zip(drawn_B.tolist(), labels_B[drawn_B].tolist(), strict=True):
        numbers[label] = numbers.get(label, 0) + 1
        if numbers[label] <= most:
            kept.append(place)
    return torch.tensor(sorted(kept), dtype=torch.int64)
