"""Change of the backbone's attention by a prompt, measured on images.

The published figures show that prompts turn the class token's attention; here it is numbers that can be
compared over tasks, and set against what the turn gained.

Shapes: B images, N tokens, D width, L layers, X image tokens other than CLS.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ship.backbone import Backbone, as_rows
from ship.method.attention import cls_attention_shares
from ship.method.low_rank import LowRank, TaskUpdates
from ship.method.model import forward
from ship.method.prompts import Prompt

__all__ = [
    "AttentionChange",
    "attention_with_and_without",
    "entropy_share",
    "measure_attention",
    "moved_share",
]

# Enough for a mean over layers; more only cost time.
_MAX_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class AttentionChange:
    """Attention of CLS to the other image tokens, with the prompt and on the bare backbone.

    Layer by layer, mean over images; attention is the mean over heads.

    Attributes:
        entropy_L: Entropy with the prompt, over its maximum: 0 on one token, 1 on all alike.
        bare_entropy_L: Entropy on the bare backbone.
        distance_L: Total variation between the two: the share of attention that moved, 0 to 1.
    """

    entropy_L: list[float]
    bare_entropy_L: list[float]
    distance_L: list[float]

    @property
    def entropy(self) -> float:
        """Mean over layers."""
        return sum(self.entropy_L) / len(self.entropy_L)

    @property
    def bare_entropy(self) -> float:
        """Mean over layers."""
        return sum(self.bare_entropy_L) / len(self.bare_entropy_L)

    @property
    def distance(self) -> float:
        """Mean over layers."""
        return sum(self.distance_L) / len(self.distance_L)


@torch.no_grad()
def measure_attention(backbone: Backbone, prompt: Prompt, images_B3HW: Tensor) -> AttentionChange:
    """Compare the class token's attention with and without a prompt.

    Args:
        backbone: The frozen network; not one that another thread uses meanwhile.
        prompt: On the same device.
        images_B3HW: uint8; at most the first 64 are looked at, fewer of large ones or in tiles.
    """
    num_pictures = max(1, min(_MAX_IMAGES, backbone.info.rows_at_once) // prompt.num_tiles)
    turned_LBX, bare_LBX = attention_with_and_without(backbone, prompt, images_B3HW[:num_pictures])
    return AttentionChange(
        entropy_L=_mean(entropy_share(turned_LBX)),
        bare_entropy_L=_mean(entropy_share(bare_LBX)),
        distance_L=_mean(moved_share(turned_LBX, bare_LBX)),
    )


@torch.no_grad()
def attention_with_and_without(
    backbone: Backbone, prompt: Prompt, images_B3HW: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention of CLS to the other image tokens, with the prompt and on the bare backbone.

    Args:
        backbone: The frozen network; not one that another thread uses meanwhile.
        prompt: On the same device.
        images_B3HW: uint8.

    Returns:
        Two of ``L,B,X``, mean over heads, each row summing to 1; of pictures in tiles a row each tile.
    """
    images_B3HW = as_rows(images_B3HW)
    num_images = len(images_B3HW)
    # Prompt tokens pass the same norm as one sample: two images at least tell them apart.
    x_BCHW = backbone.normalise(images_B3HW.repeat(2 if num_images == 1 else 1, 1, 1, 1))
    num_rows = len(x_BCHW)
    bare_LBX = _cls_attention(backbone, num_rows, None, lambda: backbone.vit.forward_features(x_BCHW))
    turned_LBX = _cls_attention(
        backbone, num_rows, prompt.low_rank, lambda: forward(backbone, prompt, x_BCHW)
    )
    return turned_LBX[:, :num_images], bare_LBX[:, :num_images]


def entropy_share(attention_X: Tensor) -> Tensor:
    """Entropy over the last dimension, over its maximum."""
    entropy: Tensor = torch.special.entr(attention_X).sum(dim=-1) / math.log(max(2, attention_X.shape[-1]))
    return entropy


def moved_share(attention_X: Tensor, other_X: Tensor) -> Tensor:
    """Total variation over the last dimension: the share of attention that moved."""
    return (attention_X - other_X).abs().sum(dim=-1) / 2


def _cls_attention(
    backbone: Backbone, num_images: int, low_rank: LowRank | None, run: Callable[[], object]
) -> Tensor:
    """Attention of CLS in one forward pass, ``L,B,X``, each row summing to 1."""
    seen_BND: dict[int, Tensor] = {}

    def keep(layer: int, module: nn.Module, arguments: object, normed_BND: Tensor) -> None:
        if len(normed_BND) == num_images:
            seen_BND.setdefault(layer, normed_BND)

    handles = [
        block.norm1.register_forward_hook(partial(keep, layer)) for layer, block in enumerate(backbone.blocks)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    layers = [
        cls_attention_shares(block, seen_BND[layer], TaskUpdates([low_rank], layer, [num_images]))
        for layer, block in enumerate(backbone.blocks)
    ]
    return torch.stack(layers).cpu()


def _mean(value_LB: Tensor) -> list[float]:
    return [round(number, 6) for number in value_LB.mean(dim=1).tolist()]
