"""Other ways to adapt a vision transformer: prompt tokens in one softmax, low ranks, full fine-tuning.

An adapter holds what is trained, always in float32, and runs any copy of its backbone with it. The backbone
itself is never written to.

Shapes: B batch, N image tokens, D width, L layers, P prompt tokens, r rank.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ship.backbone import Backbone
from ship.baselines.config import BaselineConfig

__all__ = ["Adapter", "FullAdapter", "LoraAdapter", "VptAdapter", "make_adapter"]


class Adapter(nn.Module, ABC):
    """Something trained beside, or instead of, frozen weights."""

    @abstractmethod
    def forward(self, backbone: Backbone, images_BCHW: Tensor) -> Tensor:
        """The class token after the final norm, ``B,D`` in float32, of normalised images."""


class VptAdapter(Adapter):
    """Visual prompt tuning (M. Jia et al., ECCV 2022, section 3.2), with tokens in the image's own softmax.

    Args:
        backbone: Gives the shapes.
        num_tokens: P.
        is_deep: Fresh tokens at every layer; else they enter at the first one and travel on.
        generator: Draws the initial values, as published: uniform, by the fan of the patch embedding.
    """

    def __init__(self, backbone: Backbone, num_tokens: int, *, is_deep: bool, generator: Generator) -> None:
        super().__init__()
        width, num_layers = backbone.info.width, backbone.info.depth if is_deep else 1
        fan_in = backbone.vit.patch_embed.proj.weight[0].numel()
        bound = math.sqrt(6.0 / (fan_in + width))
        drawn_LPD = torch.rand(num_layers, num_tokens, width, generator=generator)
        self.tokens_LPD = nn.Parameter((2.0 * drawn_LPD - 1.0) * bound)

    def forward(self, backbone: Backbone, images_BCHW: Tensor) -> Tensor:
        """See ``Adapter``."""
        z_BND = backbone.embed(images_BCHW)
        num_image_tokens = z_BND.shape[1]
        for layer, block in enumerate(backbone.blocks):
            if layer < len(self.tokens_LPD):
                p_BPD = self.tokens_LPD[layer].to(z_BND.dtype).expand(len(z_BND), -1, -1)
                # Last instead of after CLS, as published: attention does not know of places.
                z_BND = torch.cat([z_BND[:, :num_image_tokens], p_BPD], dim=1)
            z_BND = block(z_BND)
        normed_BD: Tensor = backbone.norm(z_BND[:, 0])
        return normed_BD.float()


class LoraAdapter(Adapter):
    """Low-rank adaptation (E. Hu et al., ICLR 2022) of every block's queries, keys and values.

    One update ``up @ down`` of the joint projection, as PEFT does for timm's ``qkv``, scaled by 1.

    Args:
        backbone: Gives the shapes.
        rank: r.
        generator: Draws ``down``; ``up`` starts at zero, so that the first forward pass is the bare one.
    """

    def __init__(self, backbone: Backbone, rank: int, *, generator: Generator) -> None:
        super().__init__()
        depth, width = backbone.info.depth, backbone.info.width
        drawn_LrD = torch.rand(depth, rank, width, generator=generator)
        self.down_LrD = nn.Parameter((2.0 * drawn_LrD - 1.0) / math.sqrt(width))
        num_out = backbone.blocks[0].attn.qkv.out_features
        self.up_LOr = nn.Parameter(torch.zeros(depth, num_out, rank))

    def forward(self, backbone: Backbone, images_BCHW: Tensor) -> Tensor:
        """See ``Adapter``."""
        with self._attached_to(backbone):
            features_BD: Tensor = backbone.vit(images_BCHW.to(backbone.dtype))
        return features_BD.float()

    @contextmanager
    def _attached_to(self, backbone: Backbone) -> Iterator[None]:
        """For the length of a pass: not for a backbone that other threads use."""
        handles = [
            block.attn.qkv.register_forward_hook(self._make_hook(layer))
            for layer, block in enumerate(backbone.blocks)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _make_hook(self, layer: int) -> Any:
        def add_update(_: nn.Module, arguments: tuple[Tensor], projected_BNO: Tensor) -> Tensor:
            [y_BND] = arguments
            down_rD, up_Or = (weight[layer].to(y_BND.dtype) for weight in (self.down_LrD, self.up_LOr))
            return projected_BNO + (y_BND @ down_rD.T) @ up_Or.T

        return add_update


class FullAdapter(Adapter):
    """Full fine-tuning: a trained copy of every weight of the backbone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        weights = dict(backbone.vit.named_parameters())
        self._names = list(weights)
        self.weights = nn.ParameterList(weight.detach().float().clone() for weight in weights.values())

    def forward(self, backbone: Backbone, images_BCHW: Tensor) -> Tensor:
        """See ``Adapter``."""
        dtype = backbone.dtype
        weights = {name: weight.to(dtype) for name, weight in zip(self._names, self.weights, strict=True)}
        features_BD: Tensor = torch.func.functional_call(backbone.vit, weights, (images_BCHW.to(dtype),))
        return features_BD.float()


def make_adapter(backbone: Backbone, config: BaselineConfig, generator: Generator) -> Adapter:
    """Trained parameters of a method, at their start, on the backbone's device."""
    adapter: Adapter
    if config.method == "full":
        adapter = FullAdapter(backbone)
    elif config.method == "lora":
        adapter = LoraAdapter(backbone, config.rank, generator=generator)
    else:
        is_deep = config.method == "vpt-deep"
        adapter = VptAdapter(backbone, config.num_tokens, is_deep=is_deep, generator=generator)
    return adapter.to(backbone.device)
