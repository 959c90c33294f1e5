"""The decision rule that a task is tuned with: calibrated, and ``unsure`` where a picture is far.

Shapes: B held-out images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.data import TaskData
from ship.data.pixel_copies import pixel_digests
from ship.decision.choosing import choose_rule
from ship.decision.distance import DistanceModel
from ship.decision.mistakes import find_good_label
from ship.decision.rule import DecisionRule
from ship.evaluation.prediction import Outputs, predict
from ship.method.prompts import Prompt

__all__ = ["FittedDecision", "fit_decision"]

# Training images that the distance is fitted to: more of a class hardly move its mean, and of many classes a
# few of each tell the covariance, which they share.
_MOST_IMAGES, _MOST_PER_CLASS, _FEW_PER_CLASS = 4000, 200, 10
_IMAGES_AT_ONCE = 256


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
    balanced_scores: bool = False,
    most_images: int = _MOST_IMAGES,
) -> FittedDecision:
    """Fit the distance to the training images, and choose the rule on the held-out ones.

    Args:
        backbone: The frozen network.
        prompt: The tuned prompt.
        data: Images and labels that it was tuned with.
        held_out: Scores and features of the held-out images.
        balanced_scores: Whether the scores are those of equally frequent classes, see ``choose_rule``.
        most_images: Training images to run, of many; more where that were too few of a class.
    """
    share = max(_FEW_PER_CLASS, min(_MOST_PER_CLASS, most_images // len(data.labels)))
    chosen_B = _choose(data.train.labels_B, share)
    images_B3HW = data.train.images_B3HW
    # Some at a time: a copy of all of them may be as large as the data.
    features = [
        predict(backbone, prompt, images_B3HW[places]).features_BD
        for places in chosen_B.split(_IMAGES_AT_ONCE)
    ]
    distance = DistanceModel.fit(torch.cat(features), data.train.labels_B[chosen_B])
    distances_B = distance.distances(held_out.features_BD)
    good = find_good_label(data.labels)
    rule = choose_rule(
        data.labels,
        held_out.logits_BC,
        data.held_out.labels_B,
        distances_B,
        good=good,
        balanced_scores=balanced_scores,
        train_counts=data.train.labels_B.bincount(minlength=len(data.labels)).tolist(),
        digests=pixel_digests(data.held_out),
    )
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
