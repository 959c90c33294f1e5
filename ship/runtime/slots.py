"""Slot pool for baked prompts: rows of one tensor that is allocated once, on the device.

A prompt's keys, values, prototypes, learned attribute parts and head are all vectors as wide as the backbone.
Each is a row of the pool, found through index tables, so prompts of any K, level count and class count share
the pool without padding, and a new one fits wherever rows are free.

A slot is an immutable handle. Its rows go back to the pool when its last reference goes: the serving task's,
or that of a batch under way. To replace a prompt is to insert the new one and to drop the old: rows that a
batch may still read are never written.

Shapes: X rows of the pool, D width, L layers, P static prompt tokens, A attribute tokens, R prototypes,
r rank, I inputs and O outputs of a linear layer, F features of the head, C classes.
"""

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ship.errors import PromptTooLargeError, SlotsFullError
from ship.runtime.baking import BakedPrompt

__all__ = ["PADDING_ROW", "Slot", "SlotPool"]

# All zeros; index tables of ragged batches are padded with it.
PADDING_ROW = 0
# As `torch.nn.functional.normalize` has it.
_EPSILON = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """A baked prompt's place in the pool. Indices are on the CPU.

    Attributes:
        keys_values_LP2: Pool rows of each layer's static prompt keys and values.
        attribute_at: Layer to the pool rows ``A`` of the attribute group that enters there.
        num_attribute: Attribute tokens in each layer.
        prototypes_R: Pool rows.
        inverse_norm_R: One over each prototype's length, float32.
        head_CX: Pool rows of the head's weight; X widths make F features.
        head_layers: Layers before the last that the head reads.
        num_tiles: Tiles of a picture.
        low_rank: Name of a linear layer to the pool rows ``L,r,T`` of its update, inputs first; T widths make
            its inputs and outputs.
        low_rank_inputs: Name of a linear layer to its inputs in widths.
        bias_C: Bias of the head, float32.
        gate_L: Share of the prompts' softmax, float32.
        attribute_mix: Weight of the prototypes' mixture in an attribute token.
        num_bytes: Bytes of the pool that it holds.
    """

    keys_values_LP2: Tensor
    attribute_at: dict[int, Tensor]
    num_attribute: tuple[int, ...]
    prototypes_R: Tensor
    inverse_norm_R: Tensor
    head_CX: Tensor
    head_layers: tuple[int, ...]
    num_tiles: int
    low_rank: dict[str, Tensor]
    low_rank_inputs: dict[str, int]
    bias_C: Tensor
    gate_L: Tensor
    attribute_mix: float
    num_bytes: int

    def __repr__(self) -> str:
        """Sizes."""
        return (
            f"Slot({self.keys_values_LP2.shape[1]} static prompt tokens, "
            f"{'low ranks, ' if self.low_rank else ''}{self.num_classes} classes, "
            f"{self.num_bytes} bytes)"
        )

    @property
    def num_classes(self) -> int:
        """C."""
        return self.head_CX.shape[0]


class SlotPool:
    """The pool. Threads may insert while others read; see the module's text for why that is safe.

    Args:
        width: D.
        dtype: Dtype of the rows.
        device: Device of the rows.
        capacity_bytes: Size of the pool. On a CPU the system commits memory when rows are first written.
    """

    def __init__(self, *, width: int, dtype: torch.dtype, device: torch.device, capacity_bytes: int) -> None:
        self._row_bytes = width * dtype.itemsize
        num_rows = max(1, capacity_bytes // self._row_bytes)
        self.rows_XD = torch.empty(num_rows, width, dtype=dtype, device=device)
        self.rows_XD[PADDING_ROW] = 0.0
        self._lock = threading.Lock()
        self._next = PADDING_ROW + 1
        # A finaliser may run at any moment, also in a thread that holds the lock: it only ever appends here.
        self._returned: list[Tensor] = []
        self._free: list[Tensor] = []

    @property
    def capacity_bytes(self) -> int:
        """Bytes of all rows."""
        return self.rows_XD.shape[0] * self._row_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the rows that slots hold."""
        with self._lock:
            return (self._next - 1 - self._count_free()) * self._row_bytes

    def insert(self, baked: BakedPrompt) -> Slot:
        """Write a baked prompt into free rows.

        Raises:
            PromptTooLargeError: The whole pool is smaller.
            SlotsFullError: There is no room; nothing was written.
        """
        keys_values_LP2HE = torch.stack([baked.keys_LHPE, baked.values_LHPE]).permute(1, 3, 0, 2, 4)
        depth, num_tokens = keys_values_LP2HE.shape[:2]
        groups = {layer: group for layer, group in baked.attribute_at.items() if group is not None}
        width = self.rows_XD.shape[1]
        low_rank = {name: _low_rank_rows(*pair, width) for name, pair in baked.low_rank.items()}
        parts = [
            keys_values_LP2HE.flatten(3).flatten(0, 2),
            baked.prototypes_RD,
            baked.weight_CF.view(-1, width),
            *groups.values(),
            *(rows_LrTD.flatten(0, 2) for rows_LrTD in low_rank.values()),
        ]
        sizes = [part.shape[0] for part in parts]
        index = self._take(sum(sizes))
        try:
            rows = torch.cat([part.to(self.rows_XD) for part in parts])
            self.rows_XD.index_copy_(0, index.to(self.rows_XD.device), rows)
        except BaseException:
            self._returned.append(index)
            raise
        keys_values, prototypes_R, head, *more = index.split(sizes)
        attribute, updates = more[: len(groups)], more[len(groups) :]
        slot = Slot(
            keys_values_LP2=keys_values.view(depth, num_tokens, 2),
            attribute_at=dict(zip(groups, attribute, strict=True)),
            num_attribute=_count_attribute(groups, depth),
            prototypes_R=prototypes_R,
            inverse_norm_R=1.0 / baked.prototypes_RD.float().norm(dim=1).clamp_min(_EPSILON).cpu(),
            head_CX=head.view(baked.weight_CF.shape[0], -1),
            head_layers=baked.head_layers,
            num_tiles=baked.num_tiles,
            low_rank={
                name: table.view(rows_LrTD.shape[:3])
                for (name, rows_LrTD), table in zip(low_rank.items(), updates, strict=True)
            },
            low_rank_inputs={name: down.shape[2] // width for name, (down, _) in baked.low_rank.items()},
            bias_C=baked.bias_C.float().cpu(),
            gate_L=baked.gate_L.float().cpu(),
            attribute_mix=baked.attribute_mix,
            num_bytes=index.numel() * self._row_bytes,
        )
        weakref.finalize(slot, self._returned.append, index)
        return slot

    def gather(self, index: Tensor) -> Tensor:
        """The rows that an index table on the pool's device names: its shape, then D."""
        rows: Tensor = self.rows_XD.index_select(0, index.flatten()).unflatten(0, index.shape)
        return rows

    def _take(self, num_rows: int) -> Tensor:
        num_usable = self.rows_XD.shape[0] - 1
        if num_rows > num_usable:
            lacking_bytes = (num_rows - num_usable) * self._row_bytes
            raise PromptTooLargeError(
                f"the prompt needs {num_rows * self._row_bytes} bytes, and the whole slot pool has "
                f"{num_usable * self._row_bytes}; give the runtime more capacity_bytes, or tune the task "
                "with fewer prompt tokens",
                lacking_bytes,
            )
        with self._lock:
            num_free = self._count_free() + self.rows_XD.shape[0] - self._next
            if num_rows > num_free:
                raise SlotsFullError(
                    f"the prompt needs {num_rows * self._row_bytes} bytes of the slot pool, "
                    f"{num_free * self._row_bytes} of {self.capacity_bytes} are free; drop prompts that are "
                    "not in use, or give the runtime more capacity_bytes",
                    lacking_bytes=(num_rows - num_free) * self._row_bytes,
                )
            taken: list[Tensor] = []
            while num_rows and self._free:
                rows = self._free.pop()
                if rows.numel() > num_rows:
                    rows, rest = rows[:num_rows], rows[num_rows:]
                    self._free.append(rest)
                taken.append(rows)
                num_rows -= rows.numel()
            taken.append(torch.arange(self._next, self._next + num_rows))
            self._next += num_rows
            return torch.cat(taken)

    def _count_free(self) -> int:
        """Rows that were given back; under the lock."""
        while self._returned:
            self._free.append(self._returned.pop())
        return sum(rows.numel() for rows in self._free)


def _count_attribute(groups: Mapping[int, Tensor], depth: int) -> tuple[int, ...]:
    """Attribute tokens in each layer: a group stays until the next one enters."""
    numbers, number = [], 0
    for layer in range(depth):
        number = groups[layer].shape[0] if layer in groups else number
        numbers.append(number)
    return tuple(numbers)


def _low_rank_rows(down_LrI: Tensor, up_LOr: Tensor, width: int) -> Tensor:
    """Both factors of an update as vectors of the backbone's width, ``L,r,T,D``, inputs first."""
    down_LrXD = down_LrI.unflatten(2, (-1, width))
    up_LrYD = up_LOr.unflatten(1, (-1, width)).permute(0, 3, 1, 2)
    return torch.cat([down_LrXD, up_LrYD], dim=2)


def pad_rows(tables: Sequence[Tensor]) -> Tensor:
    """Tables of ragged length as one ``B,max``, padded with zeros, as the padding row is."""
    if all(len(table) == len(tables[0]) for table in tables):
        return torch.stack(list(tables))
    return torch.nn.utils.rnn.pad_sequence(list(tables), batch_first=True)
