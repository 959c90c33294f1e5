"""Inference for any mixture of tasks in one forward pass of the one backbone.

Every row brings its own slot of the pool. Keys and values of its prompt are gathered layer by layer, shorter
prompts padded and masked; attribute tokens are made only for the rows whose task has them; the last block
runs for the class token alone; each row has its own head. A row's answer does not depend on which rows are
beside it, up to the rounding of batched arithmetic. Low-rank updates and heads over several layers are ragged
likewise; the tiles of a picture are rows of the pass, and one row of the answer.

Shapes: B rows, V rows of the pass (tiles count each), U images, N image tokens, D width, X widths of a head's
features, C classes (ragged).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.method.attention import (
    attend_unfused_if_faster,
    cls_attention_logits,
    cls_attention_shares,
    finish_block_lean,
    merge_heads,
    project_keys_values,
    project_qkv,
    project_queries,
)
from ship.method.low_rank import LinearUpdate
from ship.method.model import mean_patch
from ship.method.prompts import Prompt
from ship.runtime.baking import BakedPrompt, bake
from ship.runtime.low_rank import RowUpdates
from ship.runtime.rows import LayerPrompts, Rows
from ship.runtime.slots import PADDING_ROW, Slot, SlotPool, pad_rows
from ship.vit import Block

__all__ = ["RowOutput", "Runtime", "run_block"]

DEFAULT_CAPACITY_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, eq=False)
class RowOutput:
    """Result of one row; float32, on the CPU.

    Attributes:
        logits_C: Class scores.
        feature_D: Class token of the last layer after the final norm, the mean over tiles.
    """

    logits_C: Tensor
    feature_D: Tensor


@dataclass(frozen=True, kw_only=True)
class _LastInput:
    """Input of the last block.

    Attributes:
        z_BND: Image tokens.
        prompts: The prompts that they attend to there.
        update: Low-rank updates there.
        head_layers: Layers whose tokens some head reads.
        read: Class token and mean patch token ``B,D`` of each of these.
    """

    z_BND: Tensor
    prompts: LayerPrompts | None
    update: LinearUpdate | None
    head_layers: list[int]
    read: list[Tensor]


class Runtime:
    """One backbone that answers for many tasks. Threads may share it: each inserts, infers and drops slots.

    Args:
        backbone: The frozen network.
        dtype: Dtype of activations, weights and slots: float32, bfloat16 or float16. Prompts are baked, and
            the head's sums computed, in float32.
        capacity_bytes: Size of the slot pool, which is allocated once.

    Attributes:
        run_block: Computes a block; benchmarks put compiled kernels in its place.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        dtype: torch.dtype = torch.float32,
        capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
    ) -> None:
        self.backbone = backbone
        self.run_block = run_block
        self._dtype = dtype
        self._network = backbone.cast(dtype)
        self._pool = SlotPool(
            width=backbone.info.width, dtype=dtype, device=backbone.device, capacity_bytes=capacity_bytes
        )

    def __repr__(self) -> str:
        """Backbone and memory."""
        return (
            f"Runtime({self.backbone.name!r}, {str(self.dtype).removeprefix('torch.')}, "
            f"{self.used_bytes} of {self.capacity_bytes} bytes of slots used)"
        )

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of activations and slots."""
        return self._dtype

    @property
    def capacity_bytes(self) -> int:
        """Size of the slot pool."""
        return self._pool.capacity_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the slot pool that slots hold."""
        return self._pool.used_bytes

    def insert(self, prompt: Prompt | BakedPrompt) -> Slot:
        """Put a prompt on the device; it stays for as long as the slot is referenced.

        Raises:
            SlotsFullError: There is no room.
        """
        return self._pool.insert(bake(self.backbone, prompt) if isinstance(prompt, Prompt) else prompt)

    def infer(
        self, images_UCHW: Tensor, slots: Sequence[Slot], image_of_row: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Class scores of each row.

        Args:
            images_UCHW: uint8; the tiles of a picture one after another.
            slots: One a row; rows may share one.
            image_of_row: Index of each row's image, or of the first of its tiles, for rows that share one: it
                is embedded once. None for the images in the order of the rows.

        Returns:
            ``logits_C`` for each row, float32, on the CPU.

        Raises:
            ValueError: Rows and images do not match.
        """
        scores, _ = self._pass(images_UCHW, slots, image_of_row)
        return scores

    def infer_rows(
        self, images_UCHW: Tensor, slots: Sequence[Slot], image_of_row: Sequence[int] | None = None
    ) -> list[RowOutput]:
        """Class scores and feature of each row; see ``infer``."""
        scores, cls_VD = self._pass(images_UCHW, slots, image_of_row)
        tiles = cls_VD.float().cpu().split([slot.num_tiles for slot in slots])
        return [
            RowOutput(logits_C=logits_C, feature_D=cls_TD.mean(dim=0))
            for logits_C, cls_TD in zip(scores, tiles, strict=True)
        ]

    @torch.no_grad()
    def _pass(
        self, images_UCHW: Tensor, slots: Sequence[Slot], image_of_row: Sequence[int] | None
    ) -> tuple[list[Tensor], Tensor]:
        """Scores of each row, and the normed class token ``V,D`` of each tile, on the device."""
        image_of_tile = _find_images(images_UCHW.shape[0], slots, image_of_row)
        if not slots:
            return [], torch.empty(0, self.backbone.info.width)
        slot_of_tile = [slot for slot in slots for _ in range(slot.num_tiles)]
        last = self._enter_last(images_UCHW, slot_of_tile, image_of_tile)
        block = self._network.blocks[-1]
        z_VND, _ = self.run_block(
            block, last.z_BND, last.prompts, last.update, is_last=True, with_logits=False
        )
        tokens_VXD = self._network.norm(torch.stack([*last.read, z_VND[:, 0]], dim=1))
        return self._heads(tokens_VXD, last.head_layers, slots), tokens_VXD[:, -1]

    @torch.no_grad()
    def cls_attention(self, images_BCHW: Tensor, slots: Sequence[Slot]) -> Tensor:
        """Attention of CLS to the other image tokens in the last block, with the prompts.

        Args:
            images_BCHW: uint8.
            slots: One a row.

        Returns:
            ``B,N-1``, mean over heads, each row summing to 1, float32, on the CPU.
        """
        last = self._enter_last(images_BCHW, slots, range(len(slots)))
        return self._last_attention(last.z_BND, last.update)

    @torch.no_grad()
    def bare_cls_attention(self, images_BCHW: Tensor) -> Tensor:
        """Attention of CLS in the last block of the bare backbone; see ``cls_attention``."""
        z_BND = self._network.embed(self._network.normalise(images_BCHW))
        for block in self._network.blocks[:-1]:
            z_BND = block(z_BND)
        return self._last_attention(z_BND)

    def _last_attention(self, z_BND: Tensor, update: LinearUpdate | None = None) -> Tensor:
        last_block = self._network.blocks[-1]
        return cls_attention_shares(last_block, last_block.norm1(z_BND), update).cpu()

    def _enter_last(
        self, images_UCHW: Tensor, slots: Sequence[Slot], image_of_row: Sequence[int]
    ) -> "_LastInput":
        """Run all blocks but the last."""
        network = self._network
        z_BND = network.embed(network.normalise(images_UCHW))
        if list(image_of_row) != list(range(z_BND.shape[0])):
            z_BND = z_BND[torch.tensor(image_of_row, device=z_BND.device)]
        rows, updates = Rows(slots, self._pool, self._dtype), RowUpdates(slots, self._pool)
        head_layers = sorted({layer for slot in slots for layer in slot.head_layers})
        read: list[Tensor] = []
        logits_BN: Tensor | None = None
        *blocks, last_block = network.blocks
        for layer, block in enumerate(blocks):
            rows.enter(layer, z_BND, logits_BN)
            prompts = rows.keys_values(block, layer)
            with_logits = rows.any_enters(layer + 1)
            z_BND, logits_BN = self.run_block(
                block, z_BND, prompts, updates.of(layer), is_last=False, with_logits=with_logits
            )
            rows.leave(block, layer)
            if layer in head_layers:
                # A copy, so that the other tokens' memory is freed.
                read += [z_BND[:, 0].clone(), mean_patch(network, z_BND)]
        rows.enter(len(blocks), z_BND, logits_BN)
        return _LastInput(
            z_BND=z_BND,
            prompts=rows.keys_values(last_block, len(blocks)),
            update=updates.of(len(blocks)),
            head_layers=head_layers,
            read=read,
        )

    def _heads(self, tokens_VXD: Tensor, head_layers: list[int], slots: Sequence[Slot]) -> list[Tensor]:
        """Each row's own head: its scores, ragged."""
        features_BXD = _features(tokens_VXD.float(), slots)
        table_BCX = _head_table(slots, head_layers, features_BXD.shape[1])
        weight_BCXD = self._pool.gather(table_BCX.to(tokens_VXD.device)).float()
        # A row vector from the left: on a CPU several times as fast as a column from the right.
        scores_B1C = features_BXD.flatten(1).unsqueeze(1) @ weight_BCXD.flatten(2).transpose(1, 2)
        scores_BC = scores_B1C.squeeze(1).cpu() + pad_rows([slot.bias_C for slot in slots])
        return [scores_C[: slot.num_classes] for scores_C, slot in zip(scores_BC, slots, strict=True)]


def run_block(
    block: Block,
    z_BND: Tensor,
    prompts: LayerPrompts | None,
    update: LinearUpdate | None,
    *,
    is_last: bool,
    with_logits: bool,
) -> tuple[Tensor, Tensor | None]:
    """One block for all image tokens, or in the last layer for CLS alone; also the CLS attention logits."""
    y_BND = block.norm1(z_BND)
    logits_BN = None
    if is_last:
        q_BHNE, z_BND = project_queries(block, y_BND[:, :1], update), z_BND[:, :1]
        k_BHNE, v_BHNE = project_keys_values(block, y_BND, update)
    else:
        q_BHNE, k_BHNE, v_BHNE = project_qkv(block, y_BND, update)
        logits_BN = cls_attention_logits(q_BHNE, k_BHNE) if with_logits else None
    attended_BHNE = attend_unfused_if_faster(q_BHNE, k_BHNE, v_BHNE)
    if prompts is not None:
        prompt_BHNE = attend_unfused_if_faster(
            q_BHNE, prompts.keys_BHPE, prompts.values_BHPE, mask=prompts.mask_B11P
        )
        attended_BHNE.lerp_(prompt_BHNE, prompts.gate_B111)
    return finish_block_lean(block, z_BND, merge_heads(attended_BHNE), update), logits_BN


def _find_images(num_images: int, slots: Sequence[Slot], image_of_row: Sequence[int] | None) -> list[int]:
    """The image of every row of the pass.

    Raises:
        ValueError: Rows and images do not match.
    """
    numbers = [slot.num_tiles for slot in slots]
    if image_of_row is None:
        if sum(numbers) != num_images:
            raise ValueError(f"expected {sum(numbers)} images for {len(slots)} slots, got {num_images}")
        return list(range(num_images))
    if len(image_of_row) != len(slots):
        raise ValueError(f"expected a slot for each of {len(image_of_row)} images, got {len(slots)}")
    found = [
        first + tile for first, number in zip(image_of_row, numbers, strict=True) for tile in range(number)
    ]
    if not all(0 <= image < num_images for image in found):
        raise ValueError(f"expected places among {num_images} images, got {list(image_of_row)}")
    return found


def _features(tokens_VXD: Tensor, slots: Sequence[Slot]) -> Tensor:
    """What each row's head may read, ``B,X,D``: its tokens, or mean and maximum of its tiles'; padded."""
    numbers = [slot.num_tiles for slot in slots]
    if max(numbers) == 1:
        return tokens_VXD
    rows = [
        tiles_TXD[0] if len(tiles_TXD) == 1 else torch.cat([tiles_TXD.mean(dim=0), tiles_TXD.amax(dim=0)])
        for tiles_TXD in tokens_VXD.split(numbers)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _head_table(slots: Sequence[Slot], head_layers: Sequence[int], num_features: int) -> Tensor:
    """Pool rows of the heads' weights ``B,C,X``, padded for the features that a row's head does not read."""
    most = max(slot.num_classes for slot in slots)
    table_BCX = torch.full((len(slots), most, num_features), PADDING_ROW)
    last = 2 * len(head_layers)
    for table_CX, slot in zip(table_BCX.unbind(), slots, strict=True):
        places = [2 * head_layers.index(layer) + part for layer in slot.head_layers for part in (0, 1)]
        places.append(last)
        if slot.num_tiles > 1:
            places += [last + 1 + place for place in places]
        own_CX = table_CX[: slot.num_classes]
        if len(places) == num_features:
            own_CX.copy_(slot.head_CX)
        else:
            own_CX[:, places] = slot.head_CX
    return table_BCX
