"""Schedule of a tuning: learning rate, batches, early end (paper: experiments; docs/method.md, section 5)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ship.settings.config import Schedule
from ship.tuning.state import EpochReport

__all__ = ["has_stalled", "learning_rate_at", "order_epoch"]

# Warm-up takes at most this share of all epochs: ten of ten would leave nothing to tune at full rate.
_MAX_WARMUP_SHARE = 0.1
# Adam's first steps are of full size in every weight, whatever the gradient is: some must be small.
_MIN_WARMUP_STEPS = 10


def learning_rate_at(config: Schedule, progress: float, num_epochs: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine to zero.

    Args:
        config: Gives the rate at the top and the epochs of warm-up.
        progress: Epochs done, with fractions.
        num_epochs: Number of all epochs.
        steps_per_epoch: Optimizer steps of an epoch; warm-up takes at least ten, if there are twice as many.
    """
    least = min(_MIN_WARMUP_STEPS / steps_per_epoch, num_epochs / 2)
    warmup = min(config.warmup_epochs, max(num_epochs * _MAX_WARMUP_SHARE, least))
    if progress < warmup:
        return config.learning_rate * progress / warmup
    share = (progress - warmup) / (num_epochs - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def order_epoch(seed: int, epoch: int, num_images: int, batch_size: int) -> tuple[Tensor, ...]:
    """The batches of an epoch, as places of images, by seed and epoch alone, whatever came before.

    Args:
        seed: Seed of the tuning.
        epoch: From 1.
        num_images: Number of all images.
        batch_size: Images a batch; the last one may have fewer.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    batches: tuple[Tensor, ...] = torch.randperm(num_images, generator=generator).split(batch_size)
    return batches


def has_stalled(history: Sequence[EpochReport], patience: int) -> bool:
    """Whether the validation loss has had no new minimum for ``patience`` epochs; never with 0."""
    losses = [report.val_loss for report in history if report.val_loss is not None]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])
