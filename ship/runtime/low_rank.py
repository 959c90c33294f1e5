"""Low-rank updates of one batch's rows, each row its own, by batched products.

Shapes: B rows, I those of them that have an update, N tokens, D width, L layers, r rank (the batch's most),
X inputs and Y outputs of a linear layer in widths.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ship.runtime.slots import Slot, SlotPool

__all__ = ["LayerUpdate", "RowUpdates"]

# The outputs of `qkv` that its parts have, in widths.
_PARTS = {"q": slice(0, 1), "kv": slice(1, 3)}


class _Target:
    """The updates of one linear layer; shorter ranks are padded with rows of zeros."""

    def __init__(self, name: str, slots: Sequence[Slot], pool: SlotPool) -> None:
        device = pool.rows_XD.device
        rows = [row for row, slot in enumerate(slots) if name in slot.low_rank]
        tables_LrT = [slots[row].low_rank[name] for row in rows]
        self.num_in = slots[rows[0]].low_rank_inputs[name]
        self._rows_I = None if len(rows) == len(slots) else torch.tensor(rows, device=device)
        padded = torch.nn.utils.rnn.pad_sequence([table.transpose(0, 1) for table in tables_LrT])
        # r,I,L,T to a list of L, each I,r,T in one: views are made once, not once a layer.
        self._index_L = padded.permute(2, 1, 0, 3).flatten(1).to(device).unbind()
        self._shape = (len(rows), padded.shape[0], -1)
        self._pool = pool

    def add(self, layer: int, x: Tensor, out: Tensor, part: slice | None) -> Tensor:
        """Add the updates to a linear layer's output, in place."""
        width = self._pool.rows_XD.shape[1]
        start = self.num_in * width
        rows_IrZ = self._pool.rows_XD.index_select(0, self._index_L[layer]).view(self._shape)
        down_IrX, up_IrY = rows_IrZ[:, :, :start], rows_IrZ[:, :, start:]
        if part is not None:
            up_IrY = up_IrY[:, :, part.start * width : part.stop * width]
        if self._rows_I is None:
            return out.baddbmm_(torch.bmm(x, down_IrX.transpose(1, 2)), up_IrY)
        h_INr = torch.bmm(x.index_select(0, self._rows_I), down_IrX.transpose(1, 2))
        return out.index_add_(0, self._rows_I, torch.bmm(h_INr, up_IrY))


class RowUpdates:
    """The low-rank updates of a batch.

    Args:
        slots: One a row.
        pool: The pool that holds them.
    """

    def __init__(self, slots: Sequence[Slot], pool: SlotPool) -> None:
        names = dict.fromkeys(name for slot in slots for name in slot.low_rank)
        self._targets = {name: _Target(name, slots, pool) for name in names}

    def of(self, layer: int) -> "LayerUpdate | None":
        """The updates of one layer; None if no row has any."""
        return LayerUpdate(self._targets, layer) if self._targets else None


class LayerUpdate:
    """The low-rank updates of a batch in one layer; see ``ship.method.low_rank.LinearUpdate``."""

    def __init__(self, targets: dict[str, _Target], layer: int) -> None:
        self._targets, self._layer = targets, layer

    def __call__(self, name: str, x: Tensor, out: Tensor) -> Tensor:
        """Add the updates of a linear layer to its output, in place."""
        target = self._targets.get("qkv" if name in _PARTS else name)
        return out if target is None else target.add(self._layer, x, out, _PARTS.get(name))
