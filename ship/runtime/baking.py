"""Baking of prompts: all that does not depend on an image is computed once (docs/method.md, section 4).

Independent and shared tokens see no image before the last layer, so their keys and values at every layer are
a function of the task alone. Attribute tokens depend on the image; their learned parts are kept.

Shapes: L layers, H heads, P static prompt tokens, E head width, A attribute tokens, R prototypes, D width,
r rank, I inputs and O outputs of a linear layer, F features of the head, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.method.attention import finish_block, project_qkv
from ship.method.prompts import Prompt

__all__ = ["BakedPrompt", "bake"]


@dataclass(frozen=True, kw_only=True)
class BakedPrompt:
    """One task, ready to answer; immutable, on the backbone's device.

    Attributes:
        keys_LHPE: Static prompt keys of each layer.
        values_LHPE: Static prompt values of each layer.
        gate_L: Share of the prompts' softmax; zero in a layer without prompts.
        attribute_at: Layer to the learned part ``A,D`` of the attribute group that enters there, or to None
            where a level without one starts and ends the group before.
        prototypes_RD: Prototypes of the task.
        attribute_mix: Weight of the prototypes' mixture.
        weight_CF: Weight of the head.
        bias_C: Bias of the head.
        low_rank: Name of a linear layer to ``down_LrI`` and ``up_LOr`` of its update.
        head_layers: Layers before the last that the head reads.
        num_tiles: Tiles of a picture.
    """

    keys_LHPE: Tensor
    values_LHPE: Tensor
    gate_L: Tensor
    attribute_at: dict[int, Tensor | None]
    prototypes_RD: Tensor
    attribute_mix: float
    weight_CF: Tensor
    bias_C: Tensor
    low_rank: dict[str, tuple[Tensor, Tensor]]
    head_layers: tuple[int, ...]
    num_tiles: int

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        return sum(self.bytes_by_part.values())

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Memory that each part holds."""
        groups = [group for group in self.attribute_at.values() if group is not None]
        parts = {
            "prompts": [self.keys_LHPE, self.values_LHPE, self.gate_L, *groups],
            "prototypes": [self.prototypes_RD],
            "low_rank": [weight for pair in self.low_rank.values() for weight in pair],
            "head": [self.weight_CF, self.bias_C],
        }
        return {
            name: sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            for name, tensors in parts.items()
        }


@torch.no_grad()
def bake(backbone: Backbone, prompt: Prompt) -> BakedPrompt:
    """Run the static prompt tokens through the backbone once and keep their keys and values."""
    static_PD: Tensor | None = None
    keys, values = [], []
    attribute_at: dict[int, Tensor | None] = {}
    prompt = prompt.to(backbone.device)
    for layer, block in enumerate(backbone.blocks):
        static_PD = prompt.static_tokens_at(layer, static_PD)
        if prompt.level_starting_at(layer) is not None:
            group = prompt.attribute_group_at(layer)
            attribute_at[layer] = None if group is None else prompt.attribute[group].detach().clone()
        y_1PD = block.norm1(static_PD).unsqueeze(0)
        _, k_1HPE, v_1HPE = project_qkv(block, y_1PD)
        keys.append(k_1HPE.squeeze(0))
        values.append(v_1HPE.squeeze(0))
        static_PD = finish_block(block, static_PD.unsqueeze(0), y_1PD).squeeze(0)
    return BakedPrompt(
        keys_LHPE=torch.stack(keys),
        values_LHPE=torch.stack(values),
        gate_L=prompt.gate.detach().clone(),
        attribute_at=attribute_at,
        prototypes_RD=prompt.prototypes.detach().clone(),
        attribute_mix=prompt.config.attribute_mix,
        weight_CF=prompt.head.weight.detach().clone(),
        bias_C=prompt.head.bias.detach().clone(),
        low_rank={} if prompt.low_rank is None else prompt.low_rank.pairs(),
        head_layers=prompt.head_layers,
        num_tiles=prompt.num_tiles,
    )
