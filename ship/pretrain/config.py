"""Configuration of a pre-training run.

Owns the settings, the learning-rate schedule and the seeds. Knows nothing of tensors.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

__all__ = ["Architecture", "TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape of the backbone, as arguments of timm's ``vit_tiny_patch16_224``.

    Forty-eight pixels in patches of eight are 37 tokens: patches of six would be 65, at twice the cost of
    every image that is ever tuned or served on it.
    """

    img_size: int = 48
    patch_size: int = 8
    embed_dim: int = 128
    depth: int = 12
    num_heads: int = 4

    @property
    def num_patches(self) -> int:
        """N."""
        return (self.img_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that the weights depend on, apart from the machine.

    Attributes:
        num_steps: Optimiser steps.
        seed: Seed of weights, images and masks.
        batch_size: Images a step, second views included; the last batch of a pool's use must be whole.
        learning_rate: Peak; linear warm-up, level, linear decay to zero.
        weight_decay: On matrices only.
        num_warmup: Steps of warm-up.
        decay_share: Share of the steps, at the end, in which the learning rate decays.
        hidden_share: Share of the patches that the network does not see.
        image_weight: Weight of the whole-image loss beside the patch loss.
        view_weight: Weight of the loss that makes two views of an image agree; 0 for no second views.
        content_weight: Weight of the loss on labels of the drawn contents; 0 for no labels.
        view_zoom: The smallest share of an image's side that a second view shows.
        whitening: Whitening of the whole-image targets, see ``fit_scaling``.
        num_axes: Principal axes of the whole-image targets, see ``fit_scaling``.
        pool_size: Images drawn at a time.
        num_uses: Uses of each image, turned and flipped.
        num_calibration: Images on which the targets' scale is measured.
        bfloat16: Multiply matrices in bfloat16.
        architecture: Architecture of the network.
    """

    num_steps: int
    seed: int = 0
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    num_warmup: int = 100
    decay_share: float = 0.35
    hidden_share: float = 0.4
    image_weight: float = 1.0
    view_weight: float = 0.0
    content_weight: float = 0.0
    view_zoom: float = 0.65
    whitening: float = 0.5
    num_axes: int = 96
    pool_size: int = 4096
    num_uses: int = 3
    num_calibration: int = 2048
    bfloat16: bool = False
    architecture: Architecture = field(default_factory=Architecture)

    def __post_init__(self) -> None:
        assert self.pool_size % self.images_a_step == 0, "a batch must not straddle two pools"

    @property
    def num_visible(self) -> int:
        """V, patches that the network sees."""
        return round(self.architecture.num_patches * (1 - self.hidden_share))

    @property
    def images_a_step(self) -> int:
        """Different images a step: half of the batch, where the other half are second views."""
        return self.batch_size // 2 if self.view_weight else self.batch_size

    @property
    def steps_a_pool(self) -> int:
        """Steps before new images are drawn."""
        return self.pool_size * self.num_uses // self.images_a_step

    @property
    def images_seen(self) -> int:
        """Images in all, each use and each view counted."""
        return self.num_steps * self.batch_size

    @property
    def images_drawn(self) -> int:
        """Different images in all."""
        return math.ceil(self.num_steps / self.steps_a_pool) * self.pool_size

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of one step.

        Level for most of the run, so that its length need not be known at the start (``with_steps``).
        """
        if step < self.num_warmup:
            return self.learning_rate * (step + 1) / self.num_warmup
        left = (self.num_steps - step) / max(1.0, self.num_steps * self.decay_share)
        return self.learning_rate * min(1.0, left)

    def with_steps(self, num_steps: int) -> "TrainConfig":
        """The same run, made longer or shorter: nothing changes before the shorter one's decay."""
        return replace(self, num_steps=num_steps)

    def seed_for(self, stream: str, index: int) -> int:
        """A generator's seed; no two indices or streams of a run share one."""
        if stream == "views":
            return self.seed_for("masks", index) + 2**62
        streams = ("images", "order", "masks", "calibration")
        return ((self.seed * 1_000_003 + index) * len(streams) + streams.index(stream)) % 2**62

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Undo ``to_dict``."""
        return cls(**{**values, "architecture": Architecture(**values["architecture"])})
