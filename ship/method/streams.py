"""The prompt tokens of several tasks on their way through the layers of one tuning step.

Static tokens (independent and shared) never see an image before the last layer, so they go through the
network once a step, not once a sample; attribute tokens are made from each image's own tokens. The frozen
modules run once for the prompt tokens of all tasks; only what differs between tasks is done task by task.
Unread values are not computed: neither a shared token's way out of a block, for the next layer has a
fresh one, nor any token's out of the last layer of its level (docs/method.md, sections 3 and 4).

Shapes: B samples of all tasks, b samples of one task, N image tokens, D width, H heads, E head width,
P static prompt tokens, K carried ones, A attribute tokens, X prompt tokens of all tasks, flat.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.method.attention import (
    attend_unfused_if_faster,
    finish_block,
    gather_tokens,
    mix_in_prompts,
    project_keys_values,
    project_queries,
)
from ship.method.prompts import Prompt
from ship.vit import Block

__all__ = ["PromptStreams", "TaskKeysValues", "attribute_tokens", "join_tokens", "split_tokens"]


@dataclass(frozen=True, kw_only=True)
class TaskKeysValues:
    """Keys and values that the image tokens of one task attend to beside their own in one layer.

    Attributes:
        keys_HPE: Keys of the static tokens.
        values_HPE: Values of the static tokens.
        attribute: Keys and values ``b,H,A,E`` of the attribute tokens, if any.
        gate: Share of the prompts' softmax.
    """

    keys_HPE: Tensor
    values_HPE: Tensor
    attribute: tuple[Tensor, Tensor] | None
    gate: Tensor

    @property
    def num_tokens(self) -> int:
        """P + A."""
        return self.keys_HPE.shape[1] + (self.attribute[0].shape[2] if self.attribute else 0)

    def of_each_sample(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """Keys and values ``b,H,P+A,E``."""
        k_bHAE, v_bHAE = self.attribute or (None, None)
        return (
            _of_each_sample(self.keys_HPE, k_bHAE, num_samples, dim=2),
            _of_each_sample(self.values_HPE, v_bHAE, num_samples, dim=2),
        )

    def attend(self, q_bHNE: Tensor) -> Tensor:
        """The prompts' softmax of decoupled attention: ``b,H,N,E``."""
        num_samples, _, num_tokens, width = q_bHNE.shape
        if self.attribute is not None:
            return attend_unfused_if_faster(q_bHNE, *self.of_each_sample(num_samples))
        # All samples meet the same keys: as one long row of queries nothing is copied, and a few keys
        # leave a fused kernel's backward pass little to share out.
        q_HXE = q_bHNE.transpose(0, 1).flatten(1, 2) * width**-0.5
        attended_HXE = (q_HXE @ self.keys_HPE.transpose(1, 2)).softmax(dim=-1) @ self.values_HPE
        attended_bHNE: Tensor = attended_HXE.unflatten(1, (num_samples, num_tokens)).transpose(0, 1)
        return attended_bHNE

    def mix_into(self, image_bHNE: Tensor, q_bHNE: Tensor) -> Tensor:
        """Attention of image tokens to image and prompts: ``b,H,N,E``.

        Args:
            image_bHNE: Their attention to the image alone.
            q_bHNE: Their queries.
        """
        if not self.num_tokens:
            return image_bHNE
        return mix_in_prompts(image_bHNE, self.attend(q_bHNE), self.gate)


class PromptStreams:
    """The prompt tokens that are under way, task by task.

    Args:
        prompts: One a task.
        sizes: Samples of each task, in the order of the batch.
        dtype: Dtype of activations.
    """

    def __init__(self, prompts: Sequence[Prompt], sizes: Sequence[int], dtype: torch.dtype) -> None:
        self._prompts, self._sizes, self._dtype = list(prompts), list(sizes), dtype
        self._static_PD = [prompt.shared[:0] for prompt in prompts]
        self._attribute_bAD: list[Tensor | None] = [None] * len(self._prompts)
        self._layer = 0

    def any_attribute_enters(self, layer: int) -> bool:
        """Whether a task has an attribute group that starts at this layer."""
        return any(prompt.attribute_group_at(layer) is not None for prompt in self._prompts)

    def enter(self, layer: int, z_BND: Tensor, logits_BN: Tensor | None) -> None:
        """Bring in the tokens that start at a layer.

        Args:
            layer: The layer.
            z_BND: Image tokens as they enter it.
            logits_BN: CLS attention logits of the layer before; needed where an attribute group starts.
        """
        self._layer, start = layer, 0
        for task, (prompt, size) in enumerate(zip(self._prompts, self._sizes, strict=True)):
            self._static_PD[task] = prompt.static_tokens_at(layer, self._static_PD[task]).to(self._dtype)
            group = prompt.attribute_group_at(layer)
            if group is not None:
                assert logits_BN is not None, "no attribute group enters at layer 0"
                rows = slice(start, start + size)
                self._attribute_bAD[task] = attribute_tokens(
                    z_BND[rows],
                    logits_BN[rows],
                    prototypes_RD=prompt.prototypes,
                    attribute_AD=prompt.attribute[group],
                    mix=prompt.config.attribute_mix,
                ).to(self._dtype)
            start += size

    def keys_values(self, block: Block) -> list[TaskKeysValues]:
        """Keys and values of every task's tokens in the block of the layer that they have entered."""
        k_1HXE, v_1HXE = project_keys_values(block, self._normed(block))
        found = zip(self._prompts, self._by_task(k_1HXE), self._by_task(v_1HXE), strict=True)
        return [
            TaskKeysValues(
                keys_HPE=keys_HPE,
                values_HPE=values_HPE,
                attribute=None if k_bHAE is None or v_bHAE is None else (k_bHAE, v_bHAE),
                gate=prompt.gate[self._layer],
            )
            for prompt, (keys_HPE, k_bHAE), (values_HPE, v_bHAE) in found
        ]

    def queries(self, block: Block) -> list[Tensor]:
        """Queries of every task's tokens in a block, for each sample: ``b,H,P+A,E``."""
        by_task = self._by_task(project_queries(block, self._normed(block)))
        return [
            _of_each_sample(static_HPE, attribute_bHAE, size, dim=2)
            for (static_HPE, attribute_bHAE), size in zip(by_task, self._sizes, strict=True)
        ]

    def of_each_sample(self) -> list[Tensor]:
        """Every task's tokens, for each sample: ``b,P+A,D``."""
        return [
            _of_each_sample(static_PD, attribute_bAD, size, dim=1)
            for static_PD, attribute_bAD, size in zip(
                self._static_PD, self._attribute_bAD, self._sizes, strict=True
            )
        ]

    def leave(self, block: Block, layer: int) -> None:
        """Carry through a block what the next layer reads; prompt tokens skip its attention."""
        tasks = [
            task for task, prompt in enumerate(self._prompts) if prompt.level_starting_at(layer + 1) is None
        ]
        for task in tasks:
            self._static_PD[task] = self._static_PD[task][: self._prompts[task].independent.shape[1]]
        parts = self._tokens(tasks)
        if not parts:
            return
        x_1XD = join_tokens(parts)
        new = iter(split_tokens(finish_block(block, x_1XD, block.norm1(x_1XD)), parts))
        for task in tasks:
            self._static_PD[task] = next(new)
            if self._attribute_bAD[task] is not None:
                self._attribute_bAD[task] = next(new)

    def _tokens(self, tasks: Iterable[int]) -> list[Tensor]:
        """Task by task: the static tokens ``P,D``, then the attribute tokens ``b,A,D`` if there are any."""
        parts = []
        for task in tasks:
            parts.append(self._static_PD[task])
            if (attribute_bAD := self._attribute_bAD[task]) is not None:
                parts.append(attribute_bAD)
        return parts

    def _normed(self, block: Block) -> Tensor:
        """All tokens of all tasks as they ask and are asked in a block: ``1,X,D``."""
        normed_1XD: Tensor = block.norm1(join_tokens(self._tokens(range(len(self._prompts)))))
        return normed_1XD

    def _by_task(self, x_1HXE: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Heads of all tokens to those of each task's static ``H,P,E`` and attribute tokens ``b,H,A,E``."""
        sizes = [part.shape[:-1].numel() for part in self._tokens(range(len(self._prompts)))]
        pieces = iter(x_1HXE[0].split(sizes, dim=1))
        return [
            (
                next(pieces),
                None if a_bAD is None else next(pieces).unflatten(1, a_bAD.shape[:2]).transpose(0, 1),
            )
            for a_bAD in self._attribute_bAD
        ]


def _of_each_sample(static: Tensor, attribute: Tensor | None, num_samples: int, dim: int) -> Tensor:
    """Static tokens beside each sample's attribute tokens."""
    static = static.expand(num_samples, *static.shape)
    return static if attribute is None else torch.cat([static, attribute], dim=dim)


def join_tokens(parts: Sequence[Tensor]) -> Tensor:
    """Tensors ``...,D`` as one ``1,X,D``, for modules that look at one token at a time."""
    return torch.cat([part.flatten(0, -2) for part in parts]).unsqueeze(0)


def split_tokens(x_1XD: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo ``join_tokens``."""
    sizes = [part.shape[:-1].numel() for part in like]
    return [x.view(part.shape) for x, part in zip(x_1XD[0].split(sizes), like, strict=True)]


def attribute_tokens(
    z_BND: Tensor, logits_BN: Tensor, *, prototypes_RD: Tensor, attribute_AD: Tensor, mix: float
) -> Tensor:
    """One group of attribute prompts for each sample (paper: section 3.2).

    The A image tokens that CLS attended to most are each compared with the prototypes by cosine; a softmax
    over prototypes, without temperature, weights their mixture.

    Args:
        z_BND: Image tokens out of the layer before.
        logits_BN: CLS attention logits of the layer before.
        prototypes_RD: Prototypes of the task.
        attribute_AD: The learned part.
        mix: Weight of the mixture; the learned part has the rest.

    Returns:
        ``B,A,D``, in the dtype of the learned part.
    """
    index_BA = logits_BN.topk(attribute_AD.shape[0], dim=1).indices
    chosen_BAD = gather_tokens(z_BND, index_BA).to(attribute_AD.dtype)
    cosine_BAR = F.normalize(chosen_BAD, dim=-1) @ F.normalize(prototypes_RD, dim=-1).T
    return mix * (cosine_BAR.softmax(dim=-1) @ prototypes_RD) + (1.0 - mix) * attribute_AD
