"""When a tuning ends, and how fast it learns until then (paper: experiments; method.md, section 5)."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ship.tuning.state import EpochReport

__all__ = ["Schedule", "count_epochs", "has_stalled", "learning_rate_at", "order_epoch"]

# Warm-up takes at most this share of all epochs: ten of ten would leave nothing to tune at full rate.
_MAX_WARMUP_SHARE = 0.1


class Schedule(Protocol):
    """The settings of a schedule: SHIP's and every baseline's."""

    @property
    def learning_rate(self) -> float:
        """The optimizer's, at the top."""

    @property
    def epochs(self) -> int:
        """Passes over the training images."""

    @property
    def warmup_epochs(self) -> int:
        """Epochs of linear warm-up, at most."""

    @property
    def min_steps(self) -> int:
        """Floor on optimizer steps."""

    @property
    def batch_size(self) -> int:
        """Training images a step."""


def count_epochs(config: Schedule, num_images: int) -> int:
    """``epochs``, or as many as ``min_steps`` asks for where that is more."""
    steps_per_epoch = math.ceil(num_images / config.batch_size)
    return max(config.epochs, math.ceil(config.min_steps / steps_per_epoch))


def learning_rate_at(config: Schedule, progress: float, num_epochs: int) -> float:
    """Linear warm-up, then a cosine to zero.

    Args:
        config: Gives the rate at the top and the epochs of warm-up.
        progress: Epochs done, with fractions.
        num_epochs: In all.
    """
    warmup = min(config.warmup_epochs, num_epochs * _MAX_WARMUP_SHARE)
    if progress < warmup:
        return config.learning_rate * progress / warmup
    share = (progress - warmup) / (num_epochs - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def order_epoch(seed: int, epoch: int, num_images: int, batch_size: int) -> tuple[Tensor, ...]:
    """The batches of an epoch, as places of images, by seed and epoch alone, whatever came before.

    Args:
        seed: Of the tuning.
        epoch: From 1.
        num_images: In all.
        batch_size: Images a batch; the last one may have fewer.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    batches: tuple[Tensor, ...] = torch.randperm(num_images, generator=generator).split(batch_size)
    return batches


def has_stalled(history: Sequence[EpochReport], patience: int) -> bool:
    """Whether the validation loss has had no new minimum for ``patience`` epochs; never with 0."""
    losses = [report.val_loss for report in history if report.val_loss is not None]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])
