"""The forward pass with prompts, for one task or a pack of them (paper: 3; docs/method.md, section 3).

A pack is several tasks in one pass over the same backbone: the frozen modules run once for the image tokens
of all tasks, and only what depends on a task's own prompt is done task by task. A sample's output does not
depend on what else is in the pack, up to the rounding of batched arithmetic.

Shapes: B samples of all tasks, b samples of one task, L layers, N image tokens, D width, H heads, E head
width, P prompt tokens (static and attribute), J image tokens that the last block is run for, F features of a
head, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.method.attention import (
    attend_unfused_if_faster,
    cls_attention_logits,
    finish_block,
    merge_heads,
    project_qkv,
)
from ship.method.last_block import run_last_block
from ship.method.low_rank import LinearUpdate, TaskUpdates
from ship.method.prompts import Prompt
from ship.method.streams import PromptStreams, TaskKeysValues
from ship.vit import Block

__all__ = ["ForwardOutput", "forward", "forward_pack", "head_features", "mean_patch"]


@dataclass(frozen=True, kw_only=True)
class ForwardOutput:
    """Result of one forward pass for one task.

    Attributes:
        logits_BC: Class scores, in the dtype of the prompt.
        matching: The prompt matching loss, a scalar; None unless asked for.
        cls_LBD: The class token after each block, before the final norm; of each tile.
    """

    logits_BC: Tensor
    matching: Tensor | None
    cls_LBD: Tensor


def forward(
    backbone: Backbone, prompt: Prompt, images_BCHW: Tensor, *, with_matching: bool = False
) -> ForwardOutput:
    """Run the backbone with a prompt.

    Args:
        backbone: The frozen network.
        prompt: On the same device.
        images_BCHW: Normalised images.
        with_matching: Also carry the prompts through the last block, for the matching loss.
    """
    return forward_pack(backbone, [prompt], images_BCHW, [len(images_BCHW)], with_matching=with_matching)[0]


def forward_pack(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    images_BCHW: Tensor,
    sizes: Sequence[int],
    *,
    with_matching: bool = False,
) -> list[ForwardOutput]:
    """Run the backbone once for the images of several tasks, each with its own prompt.

    Args:
        backbone: The frozen network. Its dtype is that of all activations.
        prompts: One a task, on the same device, float32 or more.
        images_BCHW: Normalised images of all tasks, task by task.
        sizes: Number of images of each task.
        with_matching: Also carry the prompts through the last block, for the matching loss.

    Returns:
        One output a task.
    """
    z_BND = backbone.embed(images_BCHW)
    streams = PromptStreams(prompts, sizes, z_BND.dtype)
    logits_BN: Tensor | None = None
    cls_per_layer = []
    means: dict[int, Sequence[Tensor]] = {}
    *blocks, last_block = backbone.blocks
    for layer, block in enumerate(blocks):
        streams.enter(layer, z_BND, logits_BN)
        update = TaskUpdates([prompt.low_rank for prompt in prompts], layer, sizes)
        with_logits = streams.any_attribute_enters(layer + 1)
        z_BND, logits_BN = _image_block(block, z_BND, streams.keys_values(block), sizes, with_logits, update)
        streams.leave(block, layer)
        cls_per_layer.append(z_BND[:, 0].split(list(sizes)))
        if any(layer in prompt.head_layers for prompt in prompts):
            means[layer] = mean_patch(backbone, z_BND).split(list(sizes))
    streams.enter(len(blocks), z_BND, logits_BN)
    last = run_last_block(last_block, z_BND, streams, prompts, sizes, with_matching=with_matching)
    outputs = []
    for task, (prompt, (cls_bD, matching)) in enumerate(zip(prompts, last, strict=True)):
        cls_LbD = torch.stack([*(per_task[task] for per_task in cls_per_layer), cls_bD])
        read = [part for x in prompt.head_layers for part in (cls_LbD[x], means[x][task])]
        logits_bC = prompt.scores(head_features(backbone, [*read, cls_bD], prompt.num_tiles))
        outputs.append(ForwardOutput(logits_BC=logits_bC, matching=matching, cls_LBD=cls_LbD))
    return outputs


def mean_patch(backbone: Backbone, z_BND: Tensor) -> Tensor:
    """The mean of the patch tokens, ``B,D``: class and register tokens are left out."""
    mean_BD: Tensor = z_BND[:, backbone.vit.num_prefix_tokens :].mean(dim=1)
    return mean_BD


def head_features(backbone: Backbone, tokens_BD: Sequence[Tensor], num_tiles: int = 1) -> Tensor:
    """The features that a head reads, ``B,F``.

    Args:
        backbone: Its final norm is applied to each token.
        tokens_BD: Tokens, of each tile.
        num_tiles: Tiles of a picture, one after another; of several the mean and the maximum are taken.
    """
    features_BF = torch.cat([backbone.norm(token_BD) for token_BD in tokens_BD], dim=1)
    if num_tiles == 1:
        return features_BF
    tiles_BTF = features_BF.unflatten(0, (-1, num_tiles))
    return torch.cat([tiles_BTF.mean(dim=1), tiles_BTF.amax(dim=1)], dim=1)


def _mix_in(
    image_BHNE: Tensor,
    q_BHNE: Tensor,
    prompts: Sequence[TaskKeysValues],
    sizes: Sequence[int],
) -> Tensor:
    """Every task's image tokens with its own prompts, ``B,N,D``."""
    pieces = zip(prompts, image_BHNE.split(list(sizes)), q_BHNE.split(list(sizes)), strict=True)
    mixed = [merge_heads(found.mix_into(image_bHNE, q_bHNE)) for found, image_bHNE, q_bHNE in pieces]
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


def _image_block(
    block: Block,
    z_BND: Tensor,
    prompts: Sequence[TaskKeysValues],
    sizes: Sequence[int],
    with_logits: bool,
    update: LinearUpdate,
) -> tuple[Tensor, Tensor | None]:
    """One block for the image tokens; also the CLS attention logits ``B,N`` if asked for."""
    q_BHNE, k_BHNE, v_BHNE = project_qkv(block, block.norm1(z_BND), update)
    image_BHNE = attend_unfused_if_faster(q_BHNE, k_BHNE, v_BHNE)
    attended_BND = _mix_in(image_BHNE, q_BHNE, prompts, sizes)
    logits_BN = cls_attention_logits(q_BHNE, k_BHNE).detach() if with_logits else None
    return finish_block(block, z_BND, attended_BND, update), logits_BN
