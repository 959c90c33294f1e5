"""SHIP written plainly from the paper: prompt tokens pass through every block, for every sample.

The baseline of the speed benchmarks, without any shortcut (docs/method.md, section 3). Shapes: B samples, N
image tokens, P prompt tokens, D width, H heads, E head width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.backbone import Backbone
from ship.method.prompts import Prompt

__all__ = ["naive_forward", "naive_loss"]


def naive_forward(backbone: Backbone, prompt: Prompt, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Class scores ``B,C``, and the prompt matching loss."""
    z, p, logits = backbone.embed(images_BCHW), None, None
    blocks = backbone.blocks
    batch, num_image = z.shape[:2]
    for layer, block in enumerate(blocks):
        p = _enter(prompt, layer, z, p, logits)
        heads = block.attn.num_heads
        y = block.norm1(torch.cat([z, p], dim=1))
        qkv = block.attn.qkv(y).reshape(batch, y.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = block.attn.q_norm(qkv[0]), block.attn.k_norm(qkv[1]), qkv[2]
        image_q, image_k, image_v = (x[:, :, :num_image] for x in (q, k, v))
        logits = ((image_q[:, :, :1] @ image_k.transpose(-2, -1)) * q.shape[-1] ** -0.5).mean(dim=1)[:, 0]
        attended_z = F.scaled_dot_product_attention(image_q, image_k, image_v)
        if p.shape[1]:
            to_prompts = F.scaled_dot_product_attention(image_q, k[:, :, num_image:], v[:, :, num_image:])
            gate = prompt.gate[layer]
            attended_z = (1 - gate) * attended_z + gate * to_prompts
        attended_z = attended_z.transpose(1, 2).flatten(2)
        if layer < len(blocks) - 1:
            attended_p = y[:, num_image:]
        else:
            attended_p = F.scaled_dot_product_attention(q[:, :, num_image:], k, v).transpose(1, 2).flatten(2)
        x = torch.cat([z, p], dim=1)
        x = x + block.ls1(block.attn.proj(torch.cat([attended_z, attended_p], dim=1)))
        x = x + block.ls2(block.mlp(block.norm2(x)))
        z, p = x[:, :num_image], x[:, num_image:]
    matching = _matching_loss(z, p, logits, prompt)
    return prompt.head(backbone.norm(z[:, 0])), matching


def naive_loss(backbone: Backbone, prompt: Prompt, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy plus weighted matching loss, of the published start."""
    scores, matching = naive_forward(backbone, prompt, images_BCHW)
    return F.cross_entropy(scores.float(), labels_B) + prompt.config.matching_weight * matching


def _enter(prompt: Prompt, layer: int, z: Tensor, p: Tensor | None, logits: Tensor | None) -> Tensor:
    """Prompt tokens of every sample at the entry of a layer: independent, attribute, shared."""
    batch, num_shared = len(z), prompt.shared.shape[0]
    shared = prompt.shared.expand(batch, -1, -1)
    level = prompt.level_starting_at(layer)
    if level is None:
        return torch.cat([p[:, : p.shape[1] - num_shared], shared], dim=1)
    parts = [prompt.independent[level].expand(batch, -1, -1)]
    group = prompt.attribute_group_at(layer)
    if group is not None:
        learned = prompt.attribute[group]
        index = logits.topk(learned.shape[0], dim=1).indices
        chosen = z.gather(1, index[..., None].expand(-1, -1, z.shape[-1]))
        cosine = F.cosine_similarity(chosen[:, :, None], prompt.prototypes[None, None], dim=-1)
        mix = prompt.config.attribute_mix
        parts.append(mix * (cosine.softmax(dim=-1) @ prompt.prototypes) + (1 - mix) * learned)
    return torch.cat([*parts, shared], dim=1)


def _matching_loss(z: Tensor, p: Tensor, logits: Tensor, prompt: Prompt) -> Tensor:
    if p.shape[1] == 0:
        return z.new_zeros(())
    index = logits.topk(min(prompt.config.top_k, z.shape[1]), dim=1).indices
    chosen = z.gather(1, index[..., None].expand(-1, -1, z.shape[-1]))
    cosine = F.normalize(p, dim=-1) @ F.normalize(chosen, dim=-1).transpose(1, 2)
    return 1 - cosine.amax(dim=-1).mean()
