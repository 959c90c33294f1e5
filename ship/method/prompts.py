"""One task's prompt: the parameters that tuning finds (paper: section 3; docs/method.md, section 1).

Shapes: L layers, D width, M levels, K independent and S shared prompts, G groups of A attribute prompts,
R prototypes, F features of the head, C classes.
"""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ship.errors import ConfigError
from ship.method.low_rank import LowRank
from ship.settings.config import TARGETS, TuneConfig

__all__ = ["Prompt", "count_attribute_groups", "spread_layers"]


def spread_layers(depth: int) -> tuple[int, ...]:
    """The layers before the last whose tokens a ``layers`` head reads: at a quarter, half, three quarters."""
    return tuple(sorted({depth * quarter // 4 - 1 for quarter in (1, 2, 3)} - {-1, depth - 1}))


class Prompt(nn.Module):
    """Tuned parameters of one task, and its prototypes, which are not tuned.

    Attributes:
        independent: ``M,K,D``; group m enters at the first layer of level m.
        shared: ``S,D``; enters fresh at every layer.
        attribute: ``G,A,D``; group g belongs to one of the last G levels.
        gate: ``L``; the share of the prompts' softmax in each layer's attention. Learned from zero with
            ``start: gated``, a constant with ``start: published``.
        low_rank: Low-rank updates of the blocks' linear layers; None where ``kind`` has none.
        head: Linear, on F features: the class tokens and mean patch tokens out of ``head_layers``, then the
            class token out of the last layer, each after the final norm; of a picture in tiles the mean and
            the maximum of the tiles' features.
        feature_mean: ``F``, subtracted from the features while tuning; zeros in a finished prompt.
        feature_scale: ``F``, divides the features while tuning; ones in a finished prompt.
        prototypes: ``R,D``; R is 0 without attribute prompts.
        level_starts: First layer of each level.
        head_layers: Layers before the last that the head reads.
        num_tiles: Tiles of a picture.
    """

    prototypes: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        config: TuneConfig,
        *,
        level_starts: Sequence[int],
        depth: int,
        prototypes_RD: Tensor,
        num_classes: int,
        head_layers: Sequence[int] = (),
        num_tiles: int = 1,
    ) -> None:
        super().__init__()
        if list(level_starts) != sorted({0, *level_starts}) or level_starts[-1] >= depth:
            raise ConfigError(
                f"level_starts: expected rising layer numbers from 0 to {depth - 1}, got {list(level_starts)}"
            )
        if list(head_layers) != sorted(set(head_layers)) or not all(0 <= x < depth - 1 for x in head_layers):
            raise ConfigError(
                f"head_layers: expected rising layer numbers from 0 to {depth - 2}, got {list(head_layers)}"
            )
        num_levels, width = len(level_starts), prototypes_RD.shape[1]
        self.config = config
        self.level_starts, self.head_layers = tuple(level_starts), tuple(head_layers)
        self.num_tiles = num_tiles
        num_independent, num_shared = (
            (config.num_independent, config.num_shared) if config.has_prompts else (0, 0)
        )
        num_groups = count_attribute_groups(config, num_levels)
        self.independent = nn.Parameter(torch.zeros(num_levels, num_independent, width))
        self.shared = nn.Parameter(torch.zeros(num_shared, width))
        self.attribute = nn.Parameter(torch.zeros(num_groups, config.num_attribute, width))
        start = 0.0 if self.is_gated else config.attention_scale
        is_learned = self.is_gated and config.has_prompts
        self.gate = nn.Parameter(torch.full((depth,), start), requires_grad=is_learned)
        self.low_rank = _make_low_rank(config, depth, width)
        num_features = width * (2 * len(head_layers) + 1) * (2 if num_tiles > 1 else 1)
        self.head = nn.Linear(num_features, num_classes)
        self.register_buffer("feature_mean", None, persistent=False)
        self.register_buffer("feature_scale", None, persistent=False)
        self._read_raw_features()
        self.register_buffer("prototypes", prototypes_RD.clone())

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial values: Xavier-uniform for SIP, Kaiming-uniform for SSP and AP.

        Fans are those of the whole tensors, as published. With the gated start the prompts begin so small a
        share of attention that their scale matters little.
        """
        if self.independent.numel():
            nn.init.xavier_uniform_(self.independent, generator=generator)
        for tensor in (self.shared, self.attribute):
            if tensor.numel():
                nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
        bound = 1.0 / math.sqrt(self.head.in_features)
        self.head.weight.uniform_(-bound, bound, generator=generator)
        self.head.bias.uniform_(-bound, bound, generator=generator)
        if self.low_rank is not None:
            self.low_rank.initialise(generator)

    @torch.no_grad()
    def standardise(self, mean_F: Tensor, scale_F: Tensor) -> None:
        """Let the head read standardised features from here on; its scores stay the same.

        Raw features are far from zero in common, so that one step of Adam would move all scores together,
        and of a scale that differs from backbone to backbone.
        """
        mean_F, scale_F = mean_F.to(self.head.weight), scale_F.to(self.head.weight)
        self.head.bias.add_(self.head.weight @ mean_F)
        self.head.weight.mul_(scale_F)
        self.feature_mean.copy_(mean_F)
        self.feature_scale.copy_(scale_F)

    def finished(self) -> "Prompt":
        """A copy whose head reads raw features."""
        prompt = copy.deepcopy(self)
        with torch.no_grad():
            prompt.head.weight.div_(self.feature_scale)
            prompt.head.bias.sub_(prompt.head.weight @ self.feature_mean)
        prompt._read_raw_features()
        return prompt

    def _read_raw_features(self) -> None:
        weight = self.head.weight
        self.feature_mean, self.feature_scale = (
            weight.new_zeros(weight.shape[1]),
            weight.new_ones(weight.shape[1]),
        )

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the tensors of a finished prompt, also where this one has no memory yet (``meta``)."""
        self.load_state_dict(tensors, assign=True)
        self._read_raw_features()

    def scores(self, features_BF: Tensor) -> Tensor:
        """Class scores ``B,C`` of the head's features."""
        features_BF = (features_BF.to(self.head.weight.dtype) - self.feature_mean) / self.feature_scale
        scores_BC: Tensor = self.head(features_BF)
        return scores_BC

    def __repr__(self) -> str:
        """Sizes."""
        return (
            f"Prompt({self.config.kind}, {self.num_levels} levels of {self.independent.shape[1]} tokens, "
            f"{self.num_classes} classes, {self.num_trained()} tuned weights)"
        )

    @property
    def is_gated(self) -> bool:
        """Whether gates are learned, from zero."""
        return self.config.start == "gated"

    @property
    def num_levels(self) -> int:
        """M."""
        return len(self.level_starts)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.head.out_features

    @property
    def depth(self) -> int:
        """L."""
        return self.gate.numel()

    def level_starting_at(self, layer: int) -> int | None:
        """The level that starts at this layer, if one does."""
        return self.level_starts.index(layer) if layer in self.level_starts else None

    def attribute_group_at(self, layer: int) -> int | None:
        """The attribute group that enters at this layer, if one does."""
        level = self.level_starting_at(layer)
        if level is None:
            return None
        group = level - (self.num_levels - self.attribute.shape[0])
        return group if group >= 0 else None

    def static_tokens_at(self, layer: int, carried_PD: Tensor | None) -> Tensor:
        """The prompt tokens that see no image, as they enter a layer: ``[K or none, S]`` by D.

        Args:
            layer: The layer that they enter.
            carried_PD: Output of the layer before, at least its first K tokens; None at layer 0.
        """
        level = self.level_starting_at(layer)
        if level is not None:
            return torch.cat([self.independent[level], self.shared])
        assert carried_PD is not None, "layer 0 starts a level"
        return torch.cat([carried_PD[: self.independent.shape[1]], self.shared])

    def num_trained(self) -> int:
        """Number of weights that tuning may change."""
        return sum(weight.numel() for weight in self.parameters() if weight.requires_grad)


def count_attribute_groups(config: TuneConfig, num_levels: int) -> int:
    """G: level 0 has no layer before it whose attention could choose attributes."""
    if not (config.has_prompts and config.num_attribute):
        return 0
    return min(config.num_attribute_groups, num_levels - 1)


def _make_low_rank(config: TuneConfig, depth: int, width: int) -> LowRank | None:
    sizes = {name: (TARGETS[name][0] * width, TARGETS[name][1] * width) for name in config.low_rank_targets}
    return LowRank(sizes, depth=depth, rank=config.rank) if sizes else None
