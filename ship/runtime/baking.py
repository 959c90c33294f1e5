"""Baking of prompts: all that does not depend on an image is computed once (docs/method.md, section 4).

Independent and shared tokens see no image before the last layer, so their keys and values at every layer are
a function of the task alone. Attribute tokens depend on the image; their learned parts are kept.

Shapes: L layers, H heads, P static prompt tokens, E head width, A attribute tokens, R prototypes, D width,
C classes.
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
        weight_CD: Weight of the head.
        bias_C: Bias of the head.
    """

    keys_LHPE: Tensor
    values_LHPE: Tensor
    gate_L: Tensor
    attribute_at: dict[int, Tensor | None]
    prototypes_RD: Tensor
    attribute_mix: float
    weight_CD: Tensor
    bias_C: Tensor

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        tensors = [
            self.keys_LHPE,
            self.values_LHPE,
            self.gate_L,
            self.prototypes_RD,
            self.weight_CD,
            self.bias_C,
            *(group for group in self.attribute_at.values() if group is not None),
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


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
        weight_CD=prompt.head.weight.detach().clone(),
        bias_C=prompt.head.bias.detach().clone(),
    )
