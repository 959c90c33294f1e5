"""Learning curve of a task: held-out accuracy of the linear probe on parts of the training images.

Shapes: N training images, B held-out images, F features, C classes.
"""

import math

import torch
from torch import Tensor

from ship.data import TaskData
from ship.evaluation.accuracy import evaluate_logits
from ship.settings.config import TuneConfig
from ship.tuning.balance import Balance
from ship.tuning.linear_probe import LinearProbe, fit_linear_probe

__all__ = ["measure_learning_curve"]

# A quarter of a class is an image at least, and one draw's luck decides little.
_FEWEST_OF_A_CLASS, _NUM_DRAWS = 4, 3


def measure_learning_curve(
    data: TaskData, config: TuneConfig, probe: LinearProbe, train_NF: Tensor, held_out_BF: Tensor
) -> list[list[float]]:
    """Held-out accuracy of the linear probe by number of training images, mean over draws.

    Args:
        data: Gives the labels.
        config: Gives balance and seed.
        probe: The probe on all training images; the others take over its penalty.
        train_NF: Features of the training images.
        held_out_BF: Features of the held-out images.

    Returns:
        Number of images and accuracy for a quarter, half and all of them; empty where a class has fewer than
        four.
    """
    labels_N, labels_B = data.train.labels_B, data.held_out.labels_B
    counts_C = labels_N.bincount(minlength=len(data.labels))
    if int(counts_C.min()) < _FEWEST_OF_A_CLASS or len(counts_C) < 2:
        return []
    generator, curve = torch.Generator().manual_seed(config.seed), []
    for share in (0.25, 0.5):
        chosen, accuracies = torch.arange(0), []
        for _ in range(_NUM_DRAWS):
            chosen = _draw_of_each_class(labels_N, share, generator)
            part = fit_linear_probe(
                train_NF[chosen],
                labels_N[chosen],
                num_classes=len(data.labels),
                balance=Balance.of(config, labels_N[chosen], len(data.labels)),
                seed=config.seed,
                inverse_penalty=probe.inverse_penalty,
            )
            accuracies.append(evaluate_logits(part.logits(held_out_BF), labels_B).accuracy)
        curve.append([len(chosen), sum(accuracies) / len(accuracies)])
    return [*curve, [len(labels_N), evaluate_logits(probe.logits(held_out_BF), labels_B).accuracy]]


def _draw_of_each_class(labels_N: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Places of this share of each class's images, rounded up, in rising order."""
    order_N = torch.randperm(len(labels_N), generator=generator)
    chosen = []
    for label in labels_N.unique():
        places = order_N[labels_N[order_N] == label]
        chosen.append(places[: math.ceil(share * len(places))])
    return torch.cat(chosen).sort().values
