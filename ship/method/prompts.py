"""One task's prompt: the parameters that tuning finds (paper: section 3; docs/method.md, section 1).

Shapes: L layers, D width, M levels, K independent and S shared prompts, G groups of A attribute prompts,
R prototypes, C classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ship.errors import ConfigError
from ship.settings.config import TuneConfig

__all__ = ["Prompt"]


class Prompt(nn.Module):
    """Tuned parameters of one task, and its prototypes, which are not tuned.

    Attributes:
        independent: ``M,K,D``; group m enters at the first layer of level m.
        shared: ``S,D``; enters fresh at every layer.
        attribute: ``G,A,D``; group g belongs to one of the last G levels.
        gate: ``L``; the share of the prompts' softmax in each layer's attention. Learned from zero with
            ``start: gated``, a constant with ``start: published``.
        head: Linear, on the final norm of the class token.
        prototypes: ``R,D``.
        level_starts: First layer of each level.
    """

    prototypes: Tensor

    def __init__(
        self,
        config: TuneConfig,
        *,
        level_starts: Sequence[int],
        depth: int,
        prototypes_RD: Tensor,
        num_classes: int,
    ) -> None:
        super().__init__()
        if list(level_starts) != sorted({0, *level_starts}) or level_starts[-1] >= depth:
            raise ConfigError(
                f"level_starts: expected rising layer numbers from 0 to {depth - 1}, got {list(level_starts)}"
            )
        num_levels, width = len(level_starts), prototypes_RD.shape[1]
        # Level 0 has no layer before it whose attention could choose attributes.
        num_groups = min(config.num_attribute_groups, num_levels - 1) if config.num_attribute else 0
        self.config = config
        self.level_starts = tuple(level_starts)
        self.independent = nn.Parameter(torch.zeros(num_levels, config.num_independent, width))
        self.shared = nn.Parameter(torch.zeros(config.num_shared, width))
        self.attribute = nn.Parameter(torch.zeros(num_groups, config.num_attribute, width))
        start = 0.0 if self.is_gated else config.attention_scale
        self.gate = nn.Parameter(torch.full((depth,), start), requires_grad=self.is_gated)
        self.head = nn.Linear(width, num_classes)
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

    def __repr__(self) -> str:
        """Sizes."""
        return (
            f"Prompt({self.num_levels} levels of {self.independent.shape[1]} tokens, "
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
