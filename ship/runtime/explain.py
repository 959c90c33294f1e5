"""Attention maps of one image: with a prompt, and on the bare backbone.

A map shows the last block, mean over heads: how the class token shares out, over the patches of the image,
the attention that it pays to patches. Each map sums to 1. What it pays to itself, to register tokens and to
the prompt is left out: prompts have a softmax of their own, beside the image's, and change the image's own
only through what they did to the tokens in the layers before. A patch that is bright was read much; that
does not say whether it spoke for or against the answer.

It works from a slot, so that a server can do it, and in the runtime's dtype: in bfloat16 the maps are as
coarse as that.

Shapes: H,W pixels, N image tokens, Y,X patches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ship.evaluation.attention_change import entropy_share, moved_share
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot

__all__ = ["AttentionMaps", "explain"]


@dataclass(frozen=True, kw_only=True)
class AttentionMaps:
    """Two maps, and what tells them apart in numbers.

    Attributes:
        prompted_TYX: With the prompt, float32, on the CPU; a map for each tile, which sum to 1 together.
        bare_TYX: On the bare backbone.
        entropy: Entropy of the first map over its maximum: 0 on one patch, 1 on all alike.
        bare_entropy: Entropy of the second map over its maximum.
        distance: Total variation: the share of attention that the prompt moves, 0 to 1.
    """

    prompted_TYX: Tensor
    bare_TYX: Tensor
    entropy: float
    bare_entropy: float
    distance: float


def explain(runtime: Runtime, image: Tensor, slot: Slot) -> AttentionMaps:
    """Run one image with a prompt and without, and compare what CLS attends to.

    Args:
        runtime: Runtime that holds the slot; other threads may use it meanwhile.
        image: uint8, ``3,H,W`` of the backbone's input size; ``T,3,H,W`` of a picture in tiles.
        slot: The prompt.
    """
    images_TCHW = image if image.ndim == 4 else image.unsqueeze(0)
    num_tiles = len(images_TCHW)
    rows, columns = runtime.backbone.vit.patch_embed.grid_size
    prompted_P, bare_P = (
        _over_patches(attention_TX, rows * columns).flatten() / num_tiles
        for attention_TX in (
            runtime.cls_attention(images_TCHW, [slot] * num_tiles),
            runtime.bare_cls_attention(images_TCHW),
        )
    )
    return AttentionMaps(
        prompted_TYX=prompted_P.view(num_tiles, rows, columns),
        bare_TYX=bare_P.view(num_tiles, rows, columns),
        entropy=float(entropy_share(prompted_P)),
        bare_entropy=float(entropy_share(bare_P)),
        distance=float(moved_share(prompted_P, bare_P)),
    )


def _over_patches(attention_TX: Tensor, num_patches: int) -> Tensor:
    """Register tokens come before the patches."""
    patches_TP = attention_TX[:, -num_patches:]
    sum_T1 = patches_TP.sum(dim=1, keepdim=True)
    return patches_TP / torch.clamp(sum_T1, min=torch.finfo(patches_TP.dtype).tiny)
