"""Remedies for unequal class counts: weighted losses and prior-adjusted logits.

Shapes: B images, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.decision.calibration import fit_temperature
from ship.settings.config import TuneConfig

__all__ = ["Balance"]

# Largest class over smallest, above which `auto` steps in: at one defect in fifty a plain loss finds a sixth
# of the defects, a prior-adjusted one two thirds (docs/log.md).
_MAX_RATIO = 3.0


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Cross-entropy that makes up for unequal class counts.

    Attributes:
        log_prior_C: Added to the logits while tuning, never when serving (logit adjustment, A. Menon et al.,
            ICLR 2021, equation 10); zeros for none.
        weight_C: Weight of each class's images, of mean 1 over the images; None for equal ones.
    """

    log_prior_C: Tensor
    weight_C: Tensor | None = None

    @property
    def balanced_scores(self) -> bool:
        """Whether the scores are those of equally frequent classes, however many images each has."""
        return self.weight_C is not None or bool(self.log_prior_C.any())

    @classmethod
    def of(cls, config: TuneConfig, labels_B: Tensor, num_classes: int) -> "Balance":
        """The remedy that ``balance`` means for these training labels, on their device."""
        return cls.of_counts(config, torch.bincount(labels_B, minlength=num_classes))

    @classmethod
    def of_counts(cls, config: TuneConfig, counts_C: Tensor) -> "Balance":
        """The remedy that ``balance`` means for so many training images of each class."""
        # A class without an image counts as half of one.
        counts_C = counts_C.float().clamp_min(0.5)
        num_classes = len(counts_C)
        mode = config.balance
        if mode == "auto":
            present_C = counts_C[counts_C >= 1]
            mode = "prior" if present_C.max() > _MAX_RATIO * present_C.min() else "none"
        none_C = torch.zeros_like(counts_C)
        if mode == "prior":
            return cls(log_prior_C=(counts_C / counts_C.sum()).log())
        if mode == "weights":
            return cls(log_prior_C=none_C, weight_C=counts_C.sum() / (num_classes * counts_C))
        return cls(log_prior_C=none_C)

    def losses(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Loss of each image."""
        log_prior_C = self.log_prior_C.to(logits_BC.device)
        losses_B = F.cross_entropy(logits_BC + log_prior_C, labels_B, reduction="none")
        if self.weight_C is not None:
            losses_B = losses_B * self.weight_C.to(losses_B)[labels_B]
        return losses_B

    def calibrated_losses(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Loss of each image at the temperature that suits these images best (C. Guo et al., ICML 2017).

        The scores are calibrated as what is published is, so that an adapter that is too sure of itself is no
        worse for it.
        """
        temperature = fit_temperature(logits_BC, labels_B, self._log_shares())
        return self.losses(logits_BC / temperature, labels_B)

    def cross_entropy(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Mean loss of some images."""
        return self.losses(logits_BC, labels_B).mean()

    def _log_shares(self) -> Tensor | None:
        """Log of each class's share of the training images; None where the scores have it in them."""
        if self.weight_C is not None:
            return -(len(self.weight_C) * self.weight_C).log()
        return self.log_prior_C if self.balanced_scores else None
