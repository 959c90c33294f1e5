"""The forward pass with one task's prompt (paper: section 3; method.md, section 3).

Prompt tokens travel in two streams. Static ones (independent and shared) never see an image before the last
layer, so they go through the network once a call, not once a sample. Attribute tokens are made from each
image's own tokens. Softmax does not care for the order of its keys, so the split is exact.

Shapes: B batch, L layers, N image tokens, D width, H heads, E head width, P static prompt tokens, A attribute
tokens, J image tokens chosen by CLS, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.attention import (
    attend,
    cls_attention_logits,
    finish_block,
    gather_tokens,
    merge_heads,
    mix_in_prompts,
    project_qkv,
)
from ship.backbone import Backbone
from ship.losses import matching_loss
from ship.prompts import Prompt
from ship.vit import Block

__all__ = ["Output", "attribute_tokens", "forward"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """What one forward pass yields.

    Attributes:
        logits_BC: Class scores.
        matching: The prompt matching loss, a scalar; None unless asked for.
        cls_LBD: The class token after each block, before the final norm.
    """

    logits_BC: Tensor
    matching: Tensor | None
    cls_LBD: Tensor


def forward(
    backbone: Backbone, prompt: Prompt, images_BCHW: Tensor, *, with_matching: bool = False
) -> Output:
    """Run the backbone with the prompt.

    Args:
        backbone: The frozen network.
        prompt: On the same device.
        images_BCHW: Normalised images.
        with_matching: Also carry the prompts through the last block, for the matching loss.
    """
    z_BND = backbone.embed(images_BCHW)
    static_PD: Tensor | None = None
    attribute_BAD: Tensor | None = None
    logits_BN: Tensor | None = None
    cls_per_layer = []
    blocks = backbone.blocks
    for layer, block in enumerate(blocks):
        static_PD = prompt.static_tokens_at(layer, static_PD)
        if prompt.level_starting_at(layer) is not None:
            attribute_BAD = _new_attribute_tokens(prompt, layer, z_BND, logits_BN)
        if layer == len(blocks) - 1:
            break
        z_BND, logits_BN = _image_block(block, z_BND, static_PD, attribute_BAD, prompt, layer)
        static_PD = _skip_attention(block, static_PD.unsqueeze(0)).squeeze(0)
        if attribute_BAD is not None:
            attribute_BAD = _skip_attention(block, attribute_BAD)
        cls_per_layer.append(z_BND[:, 0])
    assert static_PD is not None, "a network has at least one layer"
    cls_BD, matching = _last_block(blocks[-1], z_BND, static_PD, attribute_BAD, prompt, with_matching)
    cls_per_layer.append(cls_BD)
    return Output(
        logits_BC=prompt.head(backbone.norm(cls_BD)), matching=matching, cls_LBD=torch.stack(cls_per_layer)
    )


def attribute_tokens(
    z_BND: Tensor, logits_BN: Tensor, *, prototypes_RD: Tensor, attribute_AD: Tensor, mix: float
) -> Tensor:
    """One group of attribute prompts for each sample (paper: section 3.2).

    The A image tokens that CLS attended to most are each compared with the prototypes by cosine; a softmax
    over prototypes, without temperature, weights their mixture.

    Args:
        z_BND: Image tokens out of the layer before.
        logits_BN: CLS attention logits of the layer before.
        prototypes_RD: The task's.
        attribute_AD: The learned part.
        mix: Weight of the mixture; the learned part has the rest.

    Returns:
        ``B,A,D``.
    """
    index_BA = logits_BN.topk(attribute_AD.shape[0], dim=1).indices
    chosen_BAD = gather_tokens(z_BND, index_BA)
    cosine_BAR = F.normalize(chosen_BAD, dim=-1) @ F.normalize(prototypes_RD, dim=-1).T
    return mix * (cosine_BAR.softmax(dim=-1) @ prototypes_RD) + (1.0 - mix) * attribute_AD


def _new_attribute_tokens(
    prompt: Prompt, layer: int, z_BND: Tensor, logits_BN: Tensor | None
) -> Tensor | None:
    group = prompt.attribute_group_at(layer)
    if group is None:
        return None
    assert logits_BN is not None, "no attribute group enters at layer 0"
    return attribute_tokens(
        z_BND,
        logits_BN,
        prototypes_RD=prompt.prototypes,
        attribute_AD=prompt.attribute[group],
        mix=prompt.config.attribute_mix,
    )


def _prompt_keys_values(
    block: Block, static_PD: Tensor, attribute_BAD: Tensor | None, batch: int
) -> tuple[Tensor, Tensor] | None:
    """Keys and values of all prompt tokens of a layer, ``B,H,P+A,E`` each; None without prompts."""
    parts = []
    if static_PD.shape[0]:
        _, k_HPE, v_HPE = (x.squeeze(0) for x in project_qkv(block, block.norm1(static_PD).unsqueeze(0)))
        parts.append((k_HPE.expand(batch, -1, -1, -1), v_HPE.expand(batch, -1, -1, -1)))
    if attribute_BAD is not None:
        parts.append(project_qkv(block, block.norm1(attribute_BAD))[1:])
    if not parts:
        return None
    keys, values = zip(*parts, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _image_block(
    block: Block, z_BND: Tensor, static_PD: Tensor, attribute_BAD: Tensor | None, prompt: Prompt, layer: int
) -> tuple[Tensor, Tensor]:
    """One block for the image tokens; also the CLS attention logits ``B,N``."""
    q_BHNE, k_BHNE, v_BHNE = project_qkv(block, block.norm1(z_BND))
    attended_BHNE = attend(q_BHNE, k_BHNE, v_BHNE)
    prompts = _prompt_keys_values(block, static_PD, attribute_BAD, z_BND.shape[0])
    if prompts is not None:
        attended_BHNE = mix_in_prompts(attended_BHNE, attend(q_BHNE, *prompts), prompt.gate[layer])
    return finish_block(block, z_BND, merge_heads(attended_BHNE)), cls_attention_logits(q_BHNE, k_BHNE)


def _skip_attention(block: Block, p_BPD: Tensor) -> Tensor:
    """One block for prompt tokens before the last layer: their attention output is their own norm."""
    return finish_block(block, p_BPD, block.norm1(p_BPD))


def _last_block(
    block: Block,
    z_BND: Tensor,
    static_PD: Tensor,
    attribute_BAD: Tensor | None,
    prompt: Prompt,
    with_matching: bool,
) -> tuple[Tensor, Tensor | None]:
    """The last block for CLS alone, or for all that the matching loss needs: CLS, chosen tokens, prompts."""
    batch = z_BND.shape[0]
    q_BHNE, k_BHNE, v_BHNE = project_qkv(block, block.norm1(z_BND))
    kept_BJ = z_BND.new_zeros(batch, 1, dtype=torch.long)
    if with_matching:
        top_k = min(prompt.config.top_k, z_BND.shape[1])
        chosen_BJ = cls_attention_logits(q_BHNE, k_BHNE).topk(top_k, dim=1).indices
        kept_BJ = torch.cat([kept_BJ, chosen_BJ], dim=1)
    q_kept = q_BHNE.gather(2, kept_BJ[:, None, :, None].expand(-1, q_BHNE.shape[1], -1, q_BHNE.shape[3]))
    attended = attend(q_kept, k_BHNE, v_BHNE)
    prompts = _prompt_keys_values(block, static_PD, attribute_BAD, batch)
    if prompts is not None:
        attended = mix_in_prompts(attended, attend(q_kept, *prompts), prompt.gate[-1])
    out_BJD = finish_block(block, gather_tokens(z_BND, kept_BJ), merge_heads(attended))
    if not with_matching:
        return out_BJD[:, 0], None
    p_BPD = static_PD.expand(batch, -1, -1)
    if attribute_BAD is not None:
        p_BPD = torch.cat([p_BPD, attribute_BAD], dim=1)
    if prompts is not None:
        q_BHPE, _, _ = project_qkv(block, block.norm1(p_BPD))
        keys, values = torch.cat([k_BHNE, prompts[0]], dim=2), torch.cat([v_BHNE, prompts[1]], dim=2)
        p_BPD = finish_block(block, p_BPD, merge_heads(attend(q_BHPE, keys, values)))
    tokens_BJD = out_BJD[:, 1:]
    if prompt.is_gated:
        # Else opening the gates bends the image towards the prompts, which lowers this loss and the accuracy.
        tokens_BJD = tokens_BJD.detach()
    return out_BJD[:, 0], matching_loss(p_BPD, tokens_BJD)
