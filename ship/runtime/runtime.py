"""Inference for any mixture of tasks in one forward pass of the one backbone.

Every row brings its own slot of the pool. Keys and values of its prompt are gathered layer by layer, shorter
prompts padded and masked; attribute tokens are made only for the rows whose task has them; the last block
runs for the class token alone; each row has its own head. A row's answer does not depend on which rows are
beside it, up to the rounding of batched arithmetic.

Shapes: B rows, U images, N image tokens, D width, C classes (ragged).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.method.attention import (
    attend_unfused_if_faster,
    cls_attention_logits,
    cls_attention_shares,
    finish_block_lean,
    merge_heads,
    mix_in_prompts,
    project_keys_values,
    project_qkv,
    project_queries,
)
from ship.method.prompts import Prompt
from ship.runtime.baking import BakedPrompt, bake
from ship.runtime.rows import LayerPrompts, Rows
from ship.runtime.slots import Slot, SlotPool, pad_rows
from ship.vit import Block

__all__ = ["Runtime"]

DEFAULT_CAPACITY_BYTES = 1 << 30


class Runtime:
    """One backbone that answers for many tasks. Threads may share it: each inserts, infers and drops slots.

    Args:
        backbone: The frozen network.
        dtype: Dtype of activations, weights and slots: float32, bfloat16 or float16. Prompts are baked, and
            the head's sums computed, in float32.
        capacity_bytes: Size of the slot pool, which is allocated once.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        dtype: torch.dtype = torch.float32,
        capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
    ) -> None:
        self.backbone = backbone
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

    @torch.no_grad()
    def infer(
        self, images_UCHW: Tensor, slots: Sequence[Slot], image_of_row: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Class scores of each row.

        Args:
            images_UCHW: uint8.
            slots: One a row; rows may share one.
            image_of_row: Index of each row's image, for rows that share one: it is embedded once. None for
                an image a row.

        Returns:
            ``logits_C`` for each row, float32, on the CPU.

        Raises:
            ValueError: Rows and images do not match.
        """
        num_images, num_rows = images_UCHW.shape[0], len(slots)
        image_of_row = range(num_images) if image_of_row is None else image_of_row
        if len(image_of_row) != num_rows:
            raise ValueError(f"expected a slot for each of {len(image_of_row)} images, got {num_rows}")
        if not all(0 <= image < num_images for image in image_of_row):
            raise ValueError(f"expected places among {num_images} images, got {list(image_of_row)}")
        if not slots:
            return []
        z_BND, prompts = self._enter_last(images_UCHW, slots, image_of_row)
        last_block = self._network.blocks[-1]
        z_BND, _ = _run_block(last_block, z_BND, prompts, is_last=True, with_logits=False)
        return self._heads(self._network.norm(z_BND[:, 0]), slots)

    @torch.no_grad()
    def cls_attention(self, images_BCHW: Tensor, slots: Sequence[Slot]) -> Tensor:
        """Attention of CLS to the other image tokens in the last block, with the prompts.

        Args:
            images_BCHW: uint8.
            slots: One a row.

        Returns:
            ``B,N-1``, mean over heads, each row summing to 1, float32, on the CPU.
        """
        z_BND, _ = self._enter_last(images_BCHW, slots, range(len(slots)))
        return self._last_attention(z_BND)

    @torch.no_grad()
    def bare_cls_attention(self, images_BCHW: Tensor) -> Tensor:
        """Attention of CLS in the last block of the bare backbone; see ``cls_attention``."""
        z_BND = self._network.embed(self._network.normalise(images_BCHW))
        for block in self._network.blocks[:-1]:
            z_BND = block(z_BND)
        return self._last_attention(z_BND)

    def _last_attention(self, z_BND: Tensor) -> Tensor:
        last_block = self._network.blocks[-1]
        return cls_attention_shares(last_block, last_block.norm1(z_BND)).cpu()

    def _enter_last(
        self, images_UCHW: Tensor, slots: Sequence[Slot], image_of_row: Sequence[int]
    ) -> tuple[Tensor, LayerPrompts | None]:
        """Input of the last block: image tokens, and the prompts that they attend to there."""
        network = self._network
        z_BND = network.embed(network.normalise(images_UCHW))
        if list(image_of_row) != list(range(z_BND.shape[0])):
            z_BND = z_BND[torch.tensor(image_of_row, device=z_BND.device)]
        rows = Rows(slots, self._pool, self._dtype)
        logits_BN: Tensor | None = None
        *blocks, last_block = network.blocks
        for layer, block in enumerate(blocks):
            rows.enter(layer, z_BND, logits_BN)
            prompts = rows.keys_values(block, layer)
            with_logits = rows.any_enters(layer + 1)
            z_BND, logits_BN = _run_block(block, z_BND, prompts, is_last=False, with_logits=with_logits)
            rows.leave(block, layer)
        rows.enter(len(blocks), z_BND, logits_BN)
        return z_BND, rows.keys_values(last_block, len(blocks))

    def _heads(self, features_BD: Tensor, slots: Sequence[Slot]) -> list[Tensor]:
        """Each row's own head: its scores, ragged."""
        device = features_BD.device
        head_BC = pad_rows([slot.head_C for slot in slots]).to(device)
        weight_BCD = self._pool.gather(head_BC).float()
        scores_BC = (weight_BCD @ features_BD.float().unsqueeze(-1)).squeeze(-1).cpu()
        scores_BC = scores_BC + pad_rows([slot.bias_C for slot in slots])
        return [scores_C[: slot.num_classes] for scores_C, slot in zip(scores_BC, slots, strict=True)]


def _run_block(
    block: Block, z_BND: Tensor, prompts: LayerPrompts | None, *, is_last: bool, with_logits: bool
) -> tuple[Tensor, Tensor | None]:
    """One block for all image tokens, or in the last layer for CLS alone; also the CLS attention logits."""
    y_BND = block.norm1(z_BND)
    logits_BN = None
    if is_last:
        q_BHNE, z_BND = project_queries(block, y_BND[:, :1]), z_BND[:, :1]
        k_BHNE, v_BHNE = project_keys_values(block, y_BND)
    else:
        q_BHNE, k_BHNE, v_BHNE = project_qkv(block, y_BND)
        logits_BN = cls_attention_logits(q_BHNE, k_BHNE) if with_logits else None
    attended_BHNE = attend_unfused_if_faster(q_BHNE, k_BHNE, v_BHNE)
    if prompts is not None:
        prompt_BHNE = attend_unfused_if_faster(
            q_BHNE, prompts.keys_BHPE, prompts.values_BHPE, mask=prompts.mask_B11P
        )
        attended_BHNE = mix_in_prompts(attended_BHNE, prompt_BHNE, prompts.gate_B111)
    return finish_block_lean(block, z_BND, merge_heads(attended_BHNE)), logits_BN
