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
        prompted_YX: With the prompt, float32, on the CPU, sums to 1.
        bare_YX: On the bare backbone.
        entropy: Entropy of the first map over its maximum: 0 on one patch, 1 on all alike.
        bare_entropy: Entropy of the second map over its maximum.
        distance: Total variation: the share of attention that the prompt moves, 0 to 1.
    """

    prompted_YX: Tensor
    bare_YX: Tensor
    entropy: float
    bare_entropy: float
    distance: float


def explain(runtime: Runtime, image_3HW: Tensor, slot: Slot) -> AttentionMaps:
    """Run one image with a prompt and without, and compare what CLS attends to.

    Args:
        runtime: Runtime that holds the slot; other threads may use it meanwhile.
        image_3HW: uint8, of the backbone's input size.
        slot: The prompt.
    """
    images_1CHW = image_3HW.unsqueeze(0)
    rows, columns = runtime.backbone.vit.patch_embed.grid_size
    prompted_P, bare_P = (
        _over_patches(attention_1X[0], rows * columns)
        for attention_1X in (
            runtime.cls_attention(images_1CHW, [slot]),
            runtime.bare_cls_attention(images_1CHW),
        )
    )
    return AttentionMaps(
        prompted_YX=prompted_P.view(rows, columns),
        bare_YX=bare_P.view(rows, columns),
        entropy=float(entropy_share(prompted_P)),
        bare_entropy=float(entropy_share(bare_P)),
        distance=float(moved_share(prompted_P, bare_P)),
    )


def _over_patches(attention_X: Tensor, num_patches: int) -> Tensor:
    """Register tokens come before the patches."""
    patches_P = attention_X[-num_patches:]
    return patches_P / torch.clamp(patches_P.sum(), min=torch.finfo(patches_P.dtype).tiny)
