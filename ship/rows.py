"""The prompts of one batch's rows on their way through the layers.

Shapes: B rows, I those of them that something happens to, N image tokens, D width, H heads, E head width,
L layers, P static prompt tokens (the batch's most), A attribute tokens (likewise), R prototypes (likewise).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.attention import finish_block, gather_tokens, project_keys_values
from ship.slots import Slot, SlotPool, pad_rows
from ship.vit import Block

__all__ = ["LayerPrompts", "Rows"]


@dataclass(frozen=True, kw_only=True)
class LayerPrompts:
    """What the image tokens of each row attend to beside themselves in one layer.

    Attributes:
        keys_BHPE: Static and attribute tokens.
        values_BHPE: Likewise.
        mask_B11P: Which of them are real; None if all are.
        gate_B111: Their share.
    """

    keys_BHPE: Tensor
    values_BHPE: Tensor
    mask_B11P: Tensor | None
    gate_B111: Tensor


class Rows:
    """The rows of one batch, each with its slot.

    Args:
        slots: One a row.
        pool: Where they are.
        dtype: Of the activations.
    """

    def __init__(self, slots: Sequence[Slot], pool: SlotPool, dtype: torch.dtype) -> None:
        self._slots, self._pool = slots, pool
        self._device = pool.rows_XD.device
        # Padded over prompts: P first for pad_sequence, then layer by layer B,P,2.
        self._index_LBP2 = _pad_tables([slot.keys_values_LP2 for slot in slots]).to(self._device)
        self._lengths = [slot.keys_values_LP2.shape[1] for slot in slots]
        self._gate_LB = torch.stack([slot.gate_L for slot in slots], dim=1).to(self._device, dtype)
        self._num_attribute = [0] * len(slots)
        most = max((len(rows) for slot in slots for rows in slot.attribute_at.values()), default=0)
        width = pool.rows_XD.shape[1]
        self._attribute_BAD = torch.zeros(len(slots), most, width, dtype=dtype, device=self._device)

    def any_enters(self, layer: int) -> bool:
        """Whether an attribute group of any row enters at a layer."""
        return any(layer in slot.attribute_at for slot in self._slots)

    def enter(self, layer: int, z_BND: Tensor, logits_BN: Tensor | None) -> None:
        """Make the attribute tokens of the rows whose group enters here (paper: section 3.2)."""
        entering = [row for row, slot in enumerate(self._slots) if layer in slot.attribute_at]
        if not entering:
            return
        assert logits_BN is not None, "no attribute group enters at layer 0"
        tokens_IAD = self._new_attribute(layer, entering, _pick(z_BND, entering), _pick(logits_BN, entering))
        self._attribute_BAD = _put(self._attribute_BAD, entering, tokens_IAD)
        for row in entering:
            self._num_attribute[row] = len(self._slots[row].attribute_at[layer])

    def keys_values(self, block: Block, layer: int) -> LayerPrompts | None:
        """The prompts of a layer; None if no row has any."""
        static_BPTHE = self._static(block, layer)
        keys, values = static_BPTHE[:, :, 0].transpose(1, 2), static_BPTHE[:, :, 1].transpose(1, 2)
        masks = [_mask(self._lengths, keys.shape[2])]
        if any(self._num_attribute):
            k_BHAE, v_BHAE = self._attribute_keys_values(block)
            keys, values = torch.cat([keys, k_BHAE], dim=2), torch.cat([values, v_BHAE], dim=2)
            masks.append(_mask(self._num_attribute, k_BHAE.shape[2]))
        if keys.shape[2] == 0:
            return None
        mask_BP = torch.cat(masks, dim=1)
        gate_B = self._gate_LB[layer]
        if bool(mask_BP.all()):
            return LayerPrompts(
                keys_BHPE=keys, values_BHPE=values, mask_B11P=None, gate_B111=gate_B.view(-1, 1, 1, 1)
            )
        # A row without any prompt here would be a softmax over nothing: it attends to padding instead, and
        # its gate is zero.
        has_prompt_B1 = mask_BP.any(dim=1, keepdim=True)
        gate_B = gate_B * has_prompt_B1.squeeze(1).to(gate_B)
        mask_B11P = (mask_BP | ~has_prompt_B1)[:, None, None].to(self._device)
        return LayerPrompts(
            keys_BHPE=keys, values_BHPE=values, mask_B11P=mask_B11P, gate_B111=gate_B.view(-1, 1, 1, 1)
        )

    def leave(self, block: Block, layer: int) -> None:
        """Carry attribute tokens through a block, where the next layer does not replace them."""
        going_on = [
            row
            for row, slot in enumerate(self._slots)
            if self._num_attribute[row] and layer + 1 not in slot.attribute_at
        ]
        if not going_on:
            return
        a_IAD = _pick(self._attribute_BAD, going_on)
        out_IAD = finish_block(block, a_IAD, block.norm1(a_IAD))
        self._attribute_BAD = _put(self._attribute_BAD, going_on, out_IAD)

    def _static(self, block: Block, layer: int) -> Tensor:
        """Static keys and values, ``B,P,2,H,E``."""
        heads = (block.attn.num_heads, block.attn.head_dim)
        static_BPTHE: Tensor = self._pool.gather(self._index_LBP2[layer]).unflatten(-1, heads)
        return static_BPTHE

    def _attribute_keys_values(self, block: Block) -> tuple[Tensor, Tensor]:
        having = [row for row, number in enumerate(self._num_attribute) if number]
        a_IAD = _pick(self._attribute_BAD, having)
        k_IHAE, v_IHAE = project_keys_values(block, block.norm1(a_IAD))
        if len(having) == len(self._slots):
            return k_IHAE, v_IHAE
        empty = k_IHAE.new_zeros(len(self._slots), *k_IHAE.shape[1:])
        return _put(empty, having, k_IHAE), _put(empty, having, v_IHAE)

    def _new_attribute(self, layer: int, entering: list[int], z_IND: Tensor, logits_IN: Tensor) -> Tensor:
        slots = [self._slots[row] for row in entering]
        most = self._attribute_BAD.shape[1]
        learned_IA = pad_rows([slot.attribute_at[layer] for slot in slots])
        learned_IA = F.pad(learned_IA, (0, most - learned_IA.shape[1])).to(self._device)
        prototypes_IRD = self._pool.gather(pad_rows([slot.prototypes_R for slot in slots]).to(self._device))
        numbers = [slot.prototypes_R.numel() for slot in slots]
        mix_I11 = torch.tensor([slot.attribute_mix for slot in slots]).to(z_IND).view(-1, 1, 1)
        # Sorted: the first A of them are the ones that a task with fewer would choose.
        chosen_IAD = gather_tokens(z_IND, logits_IN.topk(most, dim=1).indices)
        cosine_IAR = F.normalize(chosen_IAD, dim=-1) @ F.normalize(prototypes_IRD, dim=-1).transpose(1, 2)
        if len(set(numbers)) > 1:
            mask_IR = _mask(numbers, prototypes_IRD.shape[1]).to(self._device)
            cosine_IAR = cosine_IAR.masked_fill(~mask_IR[:, None], -torch.inf)
        mixture_IAD = cosine_IAR.softmax(dim=-1) @ prototypes_IRD
        return mix_I11 * mixture_IAD + (1.0 - mix_I11) * self._pool.gather(learned_IA)


def _pad_tables(tables_LP2: Sequence[Tensor]) -> Tensor:
    first = tables_LP2[0]
    if all(table is first for table in tables_LP2):
        return first.unsqueeze(1).expand(-1, len(tables_LP2), -1, -1)
    padded_BPL2 = torch.nn.utils.rnn.pad_sequence(
        [table.transpose(0, 1) for table in tables_LP2], batch_first=True
    )
    return padded_BPL2.permute(2, 0, 1, 3).contiguous()


def _mask(lengths: Sequence[int], most: int) -> Tensor:
    return torch.arange(most) < torch.tensor(lengths)[:, None]


def _pick(x: Tensor, rows: list[int]) -> Tensor:
    """The rows of a batch; the batch itself where they are all of it."""
    return x if len(rows) == x.shape[0] else x[rows]


def _put(x: Tensor, rows: list[int], values: Tensor) -> Tensor:
    """The batch with these rows replaced."""
    if len(rows) == x.shape[0]:
        return values
    out = x.clone()
    out[rows] = values
    return out
