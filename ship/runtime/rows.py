"""The prompts of one batch's rows on their way through the layers.

What happens to which row in which layer follows from the slots alone, so index tables and masks are made, and
moved to the device, once a batch; the layers only compute.

Shapes: B rows, I those of them that something happens to, N image tokens, D width, H heads, E head width,
L layers, P static prompt tokens (the batch's most), A attribute tokens (likewise), R prototypes (likewise).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.method.attention import finish_block_lean, gather_tokens, project_keys_values
from ship.runtime.slots import Slot, SlotPool, pad_rows
from ship.vit import Block

__all__ = ["LayerPrompts", "Rows"]


@dataclass(frozen=True, kw_only=True)
class LayerPrompts:
    """Keys and values that the image tokens of each row attend to beside their own in one layer.

    Attributes:
        keys_BHPE: Static and attribute tokens.
        values_BHPE: Static and attribute tokens.
        mask_B11P: True for tokens that are no padding; None if none is.
        gate_B111: Their share.
    """

    keys_BHPE: Tensor
    values_BHPE: Tensor
    mask_B11P: Tensor | None
    gate_B111: Tensor


class _Chosen:
    """Some rows of a batch, by number."""

    def __init__(self, rows: list[int], num_rows: int, device: torch.device) -> None:
        self.rows = rows
        self._index_I = None if len(rows) == num_rows else torch.tensor(rows, device=device)

    def pick(self, x: Tensor) -> Tensor:
        """These rows; the batch itself where they are all of it."""
        return x if self._index_I is None else x.index_select(0, self._index_I)

    def put(self, x: Tensor, values: Tensor) -> Tensor:
        """The batch with these rows replaced."""
        return values if self._index_I is None else x.index_copy(0, self._index_I, values)


class Rows:
    """The rows of one batch, each with its slot.

    Args:
        slots: One a row.
        pool: The pool that holds them.
        dtype: Dtype of the activations.
    """

    def __init__(self, slots: Sequence[Slot], pool: SlotPool, dtype: torch.dtype) -> None:
        self._slots, self._pool = slots, pool
        self._device = pool.rows_XD.device
        self._most = [max(numbers) for numbers in zip(*(slot.num_attribute for slot in slots), strict=True)]
        self._entering = {layer for slot in slots for layer in slot.attribute_at}
        self._num_static = max(slot.keys_values_LP2.shape[1] for slot in slots)
        self._index_LBP2 = _tables(slots, self._num_static, max(self._most)).to(self._device)
        gate_LB = torch.stack([slot.gate_L for slot in slots], dim=1).to(self._device, dtype)
        self._gate_LB111 = gate_LB[..., None, None, None]
        self._mask_LBP = self._make_masks()
        shape = len(slots), max(self._most), pool.rows_XD.shape[1]
        self._attribute_BAD = torch.zeros(shape, dtype=dtype, device=self._device)

    def any_enters(self, layer: int) -> bool:
        """Whether an attribute group of any row enters at a layer."""
        return layer in self._entering

    def enter(self, layer: int, z_BND: Tensor, logits_BN: Tensor | None) -> None:
        """Make the attribute tokens of the rows whose group enters here (paper: section 3.2)."""
        if layer not in self._entering:
            return
        entering = self._choose(layer in slot.attribute_at for slot in self._slots)
        assert entering is not None, "some row's group enters"
        assert logits_BN is not None, "no attribute group enters at layer 0"
        slots = [self._slots[row] for row in entering.rows]
        tokens_IAD = self._new_attribute(layer, slots, entering.pick(z_BND), entering.pick(logits_BN))
        self._attribute_BAD = entering.put(self._attribute_BAD, tokens_IAD)

    def keys_values(self, block: Block, layer: int) -> LayerPrompts | None:
        """The prompts of a layer; None if no row has any."""
        num_attribute = self._most[layer]
        num_prompts = self._num_static + num_attribute
        if num_prompts == 0:
            return None
        heads = (block.attn.num_heads, block.attn.head_dim)
        # The places of attribute tokens hold padding until their own keys and values are written there.
        rows_BPTD = self._pool.gather(self._index_LBP2[layer, :, :num_prompts])
        keys, values = rows_BPTD.unflatten(-1, heads).permute(2, 0, 3, 1, 4).unbind(0)
        if num_attribute:
            k_BHAE, v_BHAE = self._attribute_keys_values(block, layer, num_attribute)
            keys[:, :, self._num_static :].copy_(k_BHAE)
            values[:, :, self._num_static :].copy_(v_BHAE)
        mask_B11P = None
        if self._mask_LBP is not None and self._is_ragged(layer):
            mask_B11P = self._mask_LBP[layer, :, None, None, :num_prompts]
        return LayerPrompts(
            keys_BHPE=keys, values_BHPE=values, mask_B11P=mask_B11P, gate_B111=self._gate_LB111[layer]
        )

    def leave(self, block: Block, layer: int) -> None:
        """Carry attribute tokens through a block, where the next layer does not replace them."""
        if not self._most[layer]:
            return
        going_on = self._choose(
            slot.num_attribute[layer] > 0 and layer + 1 not in slot.attribute_at for slot in self._slots
        )
        if going_on is None:
            return
        a_IAD = going_on.pick(self._attribute_BAD)
        out_IAD = finish_block_lean(block, a_IAD, block.norm1(a_IAD))
        self._attribute_BAD = going_on.put(self._attribute_BAD, out_IAD)

    def _choose(self, chosen: Iterable[bool]) -> _Chosen | None:
        rows = [row for row, is_chosen in enumerate(chosen) if is_chosen]
        return _Chosen(rows, len(self._slots), self._device) if rows else None

    def _attribute_keys_values(self, block: Block, layer: int, num_attribute: int) -> tuple[Tensor, Tensor]:
        """Keys and values of every row's attribute tokens, ``B,H,A,E`` each; zeros for rows without any."""
        having = self._choose(slot.num_attribute[layer] > 0 for slot in self._slots)
        assert having is not None, "some row has the most"
        a_IAD = having.pick(self._attribute_BAD)[:, :num_attribute]
        k_IHAE, v_IHAE = project_keys_values(block, block.norm1(a_IAD))
        if len(having.rows) == len(self._slots):
            return k_IHAE, v_IHAE
        empty_BHAE = k_IHAE.new_zeros(len(self._slots), *k_IHAE.shape[1:])
        return having.put(empty_BHAE, k_IHAE), having.put(empty_BHAE, v_IHAE)

    def _new_attribute(self, layer: int, slots: Sequence[Slot], z_IND: Tensor, logits_IN: Tensor) -> Tensor:
        """As ``ship.method.streams.attribute_tokens``, with each row's own prototypes."""
        most = self._attribute_BAD.shape[1]
        learned_IA = pad_rows([slot.attribute_at[layer] for slot in slots])
        learned_IAD = self._pool.gather(F.pad(learned_IA, (0, most - learned_IA.shape[1])).to(self._device))
        prototypes_IRD = self._pool.gather(pad_rows([slot.prototypes_R for slot in slots]).to(self._device))
        inverse_norm_IR = pad_rows([slot.inverse_norm_R for slot in slots]).to(z_IND)
        mix_I11 = torch.tensor([slot.attribute_mix for slot in slots]).to(z_IND).view(-1, 1, 1)
        # Sorted: the first A of them are the ones that a task with fewer would choose.
        chosen_IAD = gather_tokens(z_IND, logits_IN.topk(most, dim=1).indices)
        cosine_IAR = F.normalize(chosen_IAD, dim=-1) @ prototypes_IRD.transpose(1, 2)
        cosine_IAR *= inverse_norm_IR.unsqueeze(1)
        if any(len(slot.prototypes_R) < prototypes_IRD.shape[1] for slot in slots):
            cosine_IAR.masked_fill_((inverse_norm_IR == 0).unsqueeze(1), -torch.inf)
        return torch.lerp(learned_IAD, cosine_IAR.softmax(dim=-1) @ prototypes_IRD, mix_I11)

    def _is_ragged(self, layer: int) -> bool:
        return any(
            slot.num_attribute[layer] < self._most[layer] or slot.keys_values_LP2.shape[1] < self._num_static
            for slot in self._slots
        )

    def _make_masks(self) -> Tensor | None:
        """Which prompt tokens of each layer are real, ``L,B,P``; None if all are. Shuts gates on none."""
        if not any(self._is_ragged(layer) for layer in range(len(self._most))):
            return None
        lengths_B1 = torch.tensor([[slot.keys_values_LP2.shape[1]] for slot in self._slots])
        numbers_LB1 = torch.tensor([slot.num_attribute for slot in self._slots]).T.unsqueeze(-1)
        static_BP = torch.arange(self._num_static) < lengths_B1
        mask_LBP = torch.cat(
            [
                static_BP.expand(len(self._most), -1, -1),
                torch.arange(max(self._most)) < numbers_LB1,
            ],
            dim=2,
        )
        # A row without any would be a softmax over nothing: it attends to padding, and its gate is shut.
        has_none_LB1 = ~mask_LBP.any(dim=2, keepdim=True)
        self._gate_LB111.masked_fill_(has_none_LB1[..., None, None].to(self._device), 0.0)
        return (mask_LBP | has_none_LB1).to(self._device)


def _tables(slots: Sequence[Slot], num_static: int, num_attribute: int) -> Tensor:
    """Pool rows of static keys and values ``L,B,P,2``, with room for attribute tokens, padded."""
    tables_LP2 = [slot.keys_values_LP2 for slot in slots]
    if len({table.shape[1] for table in tables_LP2}) == 1:
        stacked_LBP2 = torch.stack(tables_LP2, dim=1)
    else:
        stacked_LBP2 = torch.nn.utils.rnn.pad_sequence(
            [table.transpose(0, 1) for table in tables_LP2]
        ).permute(2, 1, 0, 3)
    num_more = num_static - stacked_LBP2.shape[2] + num_attribute
    return F.pad(stacked_LBP2, (0, 0, 0, num_more)) if num_more else stacked_LBP2
