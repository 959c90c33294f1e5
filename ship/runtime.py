"""Answers for any mixture of tasks in one forward pass of the one backbone.

Every row brings its own baked prompt. Keys and values of shorter prompts are padded and masked; attribute
tokens are made only for the rows whose task has them at that layer; each row has its own head. A row's
answer does not depend on which rows are beside it, up to the rounding of batched arithmetic.

Shapes: B rows, N image tokens, D width, H heads, E head width, P static prompt tokens (the batch's most),
A attribute tokens, C classes (ragged).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ship.attention import (
    attend,
    cls_attention_logits,
    finish_block,
    merge_heads,
    mix_in_prompts,
    project_qkv,
)
from ship.backbone import Backbone
from ship.baking import BakedPrompt
from ship.model import attribute_tokens
from ship.vit import Block

__all__ = ["Runtime"]


class Runtime:
    """One backbone that answers for many tasks. Holds no state between calls: threads may share it."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def infer(self, images_BCHW: Tensor, prompts: Sequence[BakedPrompt]) -> list[Tensor]:
        """Class scores of each row.

        Args:
            images_BCHW: uint8.
            prompts: One a row; rows may share one.

        Returns:
            ``logits_C`` for each row, float32, on the CPU.
        """
        if images_BCHW.shape[0] != len(prompts):
            raise ValueError(
                f"expected a prompt for each of {images_BCHW.shape[0]} images, got {len(prompts)}"
            )
        if not prompts:
            return []
        z_BND = self.backbone.embed(self.backbone.normalise(images_BCHW))
        rows = _Rows(prompts)
        blocks = self.backbone.blocks
        logits_BN: Tensor | None = None
        for layer, block in enumerate(blocks):
            rows.enter(layer, z_BND, logits_BN)
            z_BND, logits_BN = _run_block(block, z_BND, rows, layer, is_last=layer == len(blocks) - 1)
            rows.leave(block)
        features_BD = self.backbone.norm(z_BND[:, 0])
        return [
            (prompt.weight_CD @ feature_D + prompt.bias_C).float().cpu()
            for prompt, feature_D in zip(prompts, features_BD, strict=True)
        ]


class _Rows:
    """The prompts of one batch's rows on their way through the layers."""

    def __init__(self, prompts: Sequence[BakedPrompt]) -> None:
        self.prompts = prompts
        # Padded over prompts: P first for pad_sequence, then layer by layer B,H,P,E.
        self.keys_LBHPE = _pad([prompt.keys_LHPE for prompt in prompts])
        self.values_LBHPE = _pad([prompt.values_LHPE for prompt in prompts])
        device = self.keys_LBHPE.device
        lengths_B = torch.tensor([prompt.keys_LHPE.shape[2] for prompt in prompts], device=device)
        self.static_mask_BP = torch.arange(self.keys_LBHPE.shape[3], device=device) < lengths_B[:, None]
        self.gate_LB = torch.stack([prompt.gate_L for prompt in prompts], dim=1)
        self.attribute: dict[int, Tensor] = {}

    def enter(self, layer: int, z_BND: Tensor, logits_BN: Tensor | None) -> None:
        """Make attribute tokens for the rows whose group enters here; drop those whose level ended."""
        for row, prompt in enumerate(self.prompts):
            if layer not in prompt.attribute_at:
                continue
            self.attribute.pop(row, None)
            group_AD = prompt.attribute_at[layer]
            if group_AD is not None and group_AD.shape[0]:
                assert logits_BN is not None, "no attribute group enters at layer 0"
                self.attribute[row] = attribute_tokens(
                    z_BND[row : row + 1],
                    logits_BN[row : row + 1],
                    prototypes_RD=prompt.prototypes_RD,
                    attribute_AD=group_AD,
                    mix=prompt.attribute_mix,
                )[0]

    def keys_values(self, block: Block, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt keys and values ``B,H,P+A,E`` of this layer and the mask ``B,1,1,P+A`` of real ones."""
        keys, values, mask = self.keys_LBHPE[layer], self.values_LBHPE[layer], self.static_mask_BP
        if self.attribute:
            a_BAD, lengths_B = self._padded_attribute(keys.device)
            _, k_BHAE, v_BHAE = project_qkv(block, block.norm1(a_BAD))
            keys, values = torch.cat([keys, k_BHAE], dim=2), torch.cat([values, v_BHAE], dim=2)
            mask_BA = torch.arange(a_BAD.shape[1], device=keys.device) < lengths_B[:, None]
            mask = torch.cat([mask, mask_BA], dim=1)
        return keys, values, mask[:, None, None, :]

    def leave(self, block: Block) -> None:
        """Carry attribute tokens through the block; static ones were carried when they were baked."""
        if not self.attribute:
            return
        rows = list(self.attribute)
        a_BAD = pad_sequence([self.attribute[row] for row in rows], batch_first=True)
        out_BAD = finish_block(block, a_BAD, block.norm1(a_BAD))
        self.attribute = {
            row: out_AD[: len(self.attribute[row])] for row, out_AD in zip(rows, out_BAD, strict=True)
        }

    def _padded_attribute(self, device: torch.device) -> tuple[Tensor, Tensor]:
        width = self.prompts[0].weight_CD.shape[1]
        empty = torch.zeros(0, width, device=device)
        tokens = [self.attribute.get(row, empty) for row in range(len(self.prompts))]
        lengths_B = torch.tensor([len(token) for token in tokens], device=device)
        return pad_sequence(tokens, batch_first=True), lengths_B


def _pad(per_row_LHPE: Sequence[Tensor]) -> Tensor:
    """Rows of ``L,H,P,E`` with ragged P to one ``L,B,H,P,E``."""
    padded_BPLHE = pad_sequence([row.permute(2, 0, 1, 3) for row in per_row_LHPE], batch_first=True)
    return padded_BPLHE.permute(2, 0, 3, 1, 4)


def _run_block(
    block: Block, z_BND: Tensor, rows: _Rows, layer: int, *, is_last: bool
) -> tuple[Tensor, Tensor]:
    """One block for all image tokens, or in the last layer for CLS alone; also the CLS attention logits."""
    q_BHNE, k_BHNE, v_BHNE = project_qkv(block, block.norm1(z_BND))
    logits_BN = cls_attention_logits(q_BHNE, k_BHNE)
    if is_last:
        q_BHNE, z_BND = q_BHNE[:, :, :1], z_BND[:, :1]
    attended_BHNE = attend(q_BHNE, k_BHNE, v_BHNE)
    keys, values, mask = rows.keys_values(block, layer)
    if keys.shape[2]:
        # A row without any prompt here would be a softmax over nothing: it attends to padding instead, and
        # its gate below is zero.
        has_prompt_B111 = mask.any(dim=-1, keepdim=True)
        prompt_BHNE = attend(q_BHNE, keys, values, mask=mask | ~has_prompt_B111)
        gate_B111 = rows.gate_LB[layer].view(-1, 1, 1, 1) * has_prompt_B111
        attended_BHNE = mix_in_prompts(attended_BHNE, prompt_BHNE, gate_B111)
    return finish_block(block, z_BND, merge_heads(attended_BHNE)), logits_BN
