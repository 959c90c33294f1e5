"""The last block, run only for what is read of it: CLS for the head, and for the matching loss the image
tokens that CLS attends to most and the prompt tokens (paper: section 3.4; docs/method.md, sections 3 and 4).

Only here do prompt tokens attend, to everything. Their queries too are made once a task, not once a sample.

Shapes: B samples of all tasks, b samples of one task, N image tokens, J of them kept (CLS first), D width,
H heads, E head width, P prompt tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ship.method.attention import (
    attend_unfused_if_faster,
    cls_attention_logits,
    finish_block,
    gather_tokens,
    merge_heads,
    project_keys_values,
    project_queries,
)
from ship.method.losses import matching_loss
from ship.method.low_rank import LowRank, TaskUpdates
from ship.method.prompts import Prompt
from ship.method.streams import PromptStreams, TaskKeysValues, join_tokens, split_tokens
from ship.vit import Block

__all__ = ["run_last_block"]


def run_last_block(
    block: Block,
    z_BND: Tensor,
    streams: PromptStreams,
    prompts: Sequence[Prompt],
    sizes: Sequence[int],
    *,
    with_matching: bool,
) -> list[tuple[Tensor, Tensor | None]]:
    """Each task's class tokens out of the last block ``b,D``, and its matching loss if asked for.

    Args:
        block: The last one.
        z_BND: Image tokens as they enter it.
        streams: Prompt tokens as they enter it.
        prompts: One a task.
        sizes: Samples of each task.
        with_matching: Also run what the matching loss compares.
    """
    per_task = list(sizes)
    low_ranks = [prompt.low_rank for prompt in prompts]
    layer = prompts[0].depth - 1
    y_BND = block.norm1(z_BND)
    k_BHNE, v_BHNE = project_keys_values(block, y_BND, TaskUpdates(low_ranks, layer, per_task))
    memories = list(
        zip(k_BHNE.split(per_task), v_BHNE.split(per_task), streams.keys_values(block), strict=True)
    )
    update = _Updates(low_ranks, layer)
    top_k = [prompt.config.top_k if with_matching and prompt.config.has_prompts else 0 for prompt in prompts]
    kept_bJ = _keep(block, y_BND.split(per_task), k_BHNE.split(per_task), top_k, update)
    tokens = [gather_tokens(z_bND, kept) for z_bND, kept in zip(z_BND.split(per_task), kept_bJ, strict=True)]
    asking = [gather_tokens(y_bND, kept) for y_bND, kept in zip(y_BND.split(per_task), kept_bJ, strict=True)]
    queries = _queries(block, asking, update)
    attended = [_attend_as_image(q_bHJE, *memory) for q_bHJE, memory in zip(queries, memories, strict=True)]
    if with_matching:
        tokens += streams.of_each_sample()
        asked = zip(streams.queries(block), memories, strict=True)
        attended += [_attend_as_prompts(q_bHPE, *memory) for q_bHPE, memory in asked]
    finished = finish_block(block, join_tokens(tokens), join_tokens(attended), update.of(tokens))
    out = split_tokens(finished, tokens)
    images_bJD, prompts_bPD = out[: len(prompts)], out[len(prompts) :]
    if not with_matching:
        return [(image_bJD[:, 0], None) for image_bJD in images_bJD]
    return [
        (image_bJD[:, 0], _matching_loss(prompt, p_bPD, image_bJD[:, 1:]))
        for prompt, image_bJD, p_bPD in zip(prompts, images_bJD, prompts_bPD, strict=True)
    ]


class _Updates:
    """Low-rank updates of the tasks' image tokens, for tokens that are joined; prompt tokens get none."""

    def __init__(self, low_ranks: Sequence[LowRank | None], layer: int) -> None:
        self._low_ranks, self._layer = low_ranks, layer

    def of(self, parts: Sequence[Tensor]) -> TaskUpdates:
        """The update of ``join_tokens(parts)``, whose first parts are the tasks' image tokens."""
        low_ranks = [*self._low_ranks, *[None] * (len(parts) - len(self._low_ranks))]
        sizes = [part.shape[:-1].numel() for part in parts]
        return TaskUpdates(low_ranks, self._layer, sizes, dim=1)


def _keep(
    block: Block,
    y_bND: Sequence[Tensor],
    k_bHNE: Sequence[Tensor],
    top_k: Sequence[int],
    update: _Updates,
) -> list[Tensor]:
    """Which image tokens go on, ``b,J`` for each task: CLS, then those that it attends to most."""
    kept_bJ = [y.new_zeros(len(y), 1, dtype=torch.long) for y in y_bND]
    if not any(top_k):
        return kept_bJ
    with torch.no_grad():
        queries = _queries(block, [y[:, :1] for y in y_bND], update)
        logits_bN = [cls_attention_logits(q, k) for q, k in zip(queries, k_bHNE, strict=True)]
    return [
        torch.cat([cls_b1, logits.topk(min(number, logits.shape[1]), dim=1).indices], dim=1)
        for cls_b1, logits, number in zip(kept_bJ, logits_bN, top_k, strict=True)
    ]


def _queries(block: Block, parts_bJD: Sequence[Tensor], update: _Updates) -> list[Tensor]:
    """Queries of normalised tokens, ``b,H,J,E`` for each part, of all parts at once."""
    q_1HXE = project_queries(block, join_tokens(parts_bJD), update.of(parts_bJD))
    sizes = [part.shape[:-1].numel() for part in parts_bJD]
    return [
        q_HXE.unflatten(1, part.shape[:2]).transpose(0, 1)
        for q_HXE, part in zip(q_1HXE[0].split(sizes, dim=1), parts_bJD, strict=True)
    ]


def _attend_as_image(q_bHJE: Tensor, k_bHNE: Tensor, v_bHNE: Tensor, prompts: TaskKeysValues) -> Tensor:
    """Attention to image and prompts, ``b,J,D``."""
    image_bHJE = attend_unfused_if_faster(q_bHJE, k_bHNE, v_bHNE)
    return merge_heads(prompts.mix_into(image_bHJE, q_bHJE))


def _attend_as_prompts(q_bHPE: Tensor, k_bHNE: Tensor, v_bHNE: Tensor, prompts: TaskKeysValues) -> Tensor:
    """One softmax over all image and prompt tokens of each sample, ``b,P,D``."""
    k_bHPE, v_bHPE = prompts.of_each_sample(len(q_bHPE))
    keys, values = torch.cat([k_bHNE, k_bHPE], dim=2), torch.cat([v_bHNE, v_bHPE], dim=2)
    return merge_heads(attend_unfused_if_faster(q_bHPE, keys, values))


def _matching_loss(prompt: Prompt, p_bPD: Tensor, tokens_bJD: Tensor) -> Tensor:
    if prompt.is_gated:
        # Else opening the gates bends the image towards the prompts, which lowers this loss and the accuracy.
        tokens_bJD = tokens_bJD.detach()
    dtype = prompt.shared.dtype
    return matching_loss(p_bPD.to(dtype), tokens_bJD.to(dtype))
