"""Drawn tasks: scores of classes whose likeliest class, recalls and calibration are known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ship.decision.rule import UNSURE, DecisionRule

__all__ = ["DrawnTask", "answered_as_another", "assert_stated_as_found"]


@dataclass(frozen=True, kw_only=True)
class DrawnTask:
    """Classes as normal clouds, one axis a class; the scores are the true log odds, times ``scale``.

    Attributes:
        separation: Distance of each cloud from the origin, in standard deviations.
        num_classes: C.
        scale: Above 1 the scores are too sure, below 1 not sure enough.
    """

    separation: float
    num_classes: int = 2
    scale: float = 1.0

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"class-{place}" for place in range(self.num_classes))

    def draw(self, counts: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
        """Scores and classes of so many pictures of each class."""
        generator = torch.Generator().manual_seed(seed)
        labels_B = torch.arange(self.num_classes).repeat_interleave(torch.tensor(counts))
        x_BC = torch.randn(len(labels_B), self.num_classes, generator=generator, dtype=torch.float64)
        x_BC[torch.arange(len(labels_B)), labels_B] += self.separation
        return self.scale * self.separation * x_BC, labels_B


def assert_stated_as_found(
    rule: DecisionRule, labels: Sequence[str], logits_BC: Tensor, labels_B: Tensor
) -> None:
    """Of pictures whose second class is stated with a probability, as many are of it as that says."""
    stated_B = torch.tensor([rule.natural_probabilities(labels, row)[1] for row in logits_BC.tolist()])
    for low, high in ((0.0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 1.0)):
        chosen_B = (stated_B >= low) & (stated_B < high)
        stated, found = float(stated_B[chosen_B].mean()), float(labels_B[chosen_B].double().mean())
        # Four standard errors of the count, and the 4% by which a temperature of 1000 defects may be off.
        spread = 4 * math.sqrt(stated * (1 - stated) / int(chosen_B.sum())) + 0.04 * stated
        assert found == pytest.approx(stated, abs=spread)


def answered_as_another(rule: DecisionRule, labels: Sequence[str], logits_BC: Tensor, place: int) -> float:
    """Share of pictures of one class, given by their scores, that are answered with another label.

    A picture that lies nearer to its class than one that is not answered so is not either: the decisions of a
    rule with one threshold are monotone in the margin, so that some twenty of them tell all.
    """
    margins_B = logits_BC[:, place] - logits_BC.amax(dim=1)
    order = margins_B.argsort()
    rows = logits_BC[order]
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        answer = rule.decide(labels, rows[middle].tolist()).label
        low, high = (low, middle) if answer in (labels[place], UNSURE) else (middle + 1, high)
    return low / len(rows)
