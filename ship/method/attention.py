"""The parts of a timm block, taken apart so that prompts can take part (paper: section 3.3).

timm's own modules do the arithmetic. Shapes: B batch, N image tokens, P prompt tokens, J chosen tokens,
D width, H heads, E head width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ship.linear import linear
from ship.method.low_rank import LinearUpdate
from ship.vit import Block, Mlp

__all__ = [
    "attend",
    "attend_unfused_if_faster",
    "cls_attention_logits",
    "cls_attention_shares",
    "finish_block",
    "finish_block_lean",
    "gather_tokens",
    "merge_heads",
    "mix_in_prompts",
    "project_keys_values",
    "project_qkv",
    "project_queries",
]


# Up to here plain products won with gradients on the CPU that was measured; at 197 keys they lost in float32.
_FEW_KEYS = 64


def project_qkv(
    block: Block, y_BND: Tensor, update: LinearUpdate | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of normalised tokens, each ``B,H,N,E``."""
    attention = block.attn
    batch, num_tokens, _ = y_BND.shape
    qkv = _updated(update, "qkv", y_BND, attention.qkv(y_BND))
    qkv = qkv.reshape(batch, num_tokens, 3, attention.num_heads, attention.head_dim)
    q_BHNE, k_BHNE, v_BHNE = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(q_BHNE), attention.k_norm(k_BHNE), v_BHNE


def project_queries(block: Block, y_BJD: Tensor, update: LinearUpdate | None = None) -> Tensor:
    """Queries alone of normalised tokens: ``B,H,J,E``."""
    attention = block.attn
    weight, bias = attention.qkv.weight, attention.qkv.bias
    end = weight.shape[0] // 3
    q_BJD = linear(y_BJD, weight[:end], None if bias is None else bias[:end])
    q_BJD = _updated(update, "q", y_BJD, q_BJD)
    q_BHJE: Tensor = attention.q_norm(q_BJD.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2))
    return q_BHJE


def project_keys_values(
    block: Block, y_BPD: Tensor, update: LinearUpdate | None = None
) -> tuple[Tensor, Tensor]:
    """Keys and values alone of normalised tokens that ask nothing themselves, each ``B,H,P,E``."""
    attention = block.attn
    weight, bias = attention.qkv.weight, attention.qkv.bias
    start = weight.shape[0] // 3
    keys_values = linear(y_BPD, weight[start:], None if bias is None else bias[start:])
    keys_values = _updated(update, "kv", y_BPD, keys_values)
    k_BPHE, v_BPHE = keys_values.unflatten(-1, (2, attention.num_heads, attention.head_dim)).unbind(2)
    k_BHPE = attention.k_norm(k_BPHE.transpose(1, 2))
    return k_BHPE, v_BPHE.transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """``softmax(q k^T E^-0.5 + mask) v``."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_unfused_if_faster(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """``attend`` as plain products where a CPU's fused kernel is the slower one.

    It is with gradients for few keys, and in half precision (docs/log.md has the times).
    """
    is_short = k.shape[2] <= _FEW_KEYS and torch.is_grad_enabled()
    if q.device.type != "cpu" or not (is_short or q.dtype == torch.bfloat16):
        return attend(q, k, v, mask)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    attended: Tensor = logits.softmax(dim=-1) @ v
    return attended


def mix_in_prompts(image_BHNE: Tensor, prompt_BHNE: Tensor, gate: Tensor) -> Tensor:
    """Decoupled attention: ``(1 - gate) * image + gate * prompt``, two separate softmaxes."""
    return torch.lerp(image_BHNE, prompt_BHNE, gate.to(image_BHNE.dtype))


def merge_heads(x_BHNE: Tensor) -> Tensor:
    """``B,H,N,E`` to ``B,N,D``."""
    return x_BHNE.transpose(1, 2).flatten(2)


def finish_block(
    block: Block, x_BND: Tensor, attended_BND: Tensor, update: LinearUpdate | None = None
) -> Tensor:
    """Projection, residual, norm, MLP, residual, as in the backbone's block."""
    x_BND = x_BND + block.ls1(_updated(update, "proj", attended_BND, block.attn.proj(attended_BND)))
    y_BND = block.norm2(x_BND)
    hidden_BND = block.mlp(y_BND) if update is None else _mlp(block.mlp, y_BND, update)
    out_BND: Tensor = x_BND + block.ls2(hidden_BND)
    return out_BND


def finish_block_lean(
    block: Block, x_BND: Tensor, attended_BND: Tensor, update: LinearUpdate | None = None
) -> Tensor:
    """``finish_block`` for inference: writes over what it has allocated itself, and so needs less memory."""
    projected_BND = _updated(update, "proj", attended_BND, block.attn.proj(attended_BND))
    x_BND = block.ls1(projected_BND).add_(x_BND)
    out_BND: Tensor = block.ls2(_mlp_lean(block.mlp, block.norm2(x_BND), update)).add_(x_BND)
    return out_BND


def _updated(update: LinearUpdate | None, name: str, x: Tensor, out: Tensor) -> Tensor:
    return out if update is None else update(name, x, out)


def _mlp(mlp: Any, y_BND: Tensor, update: LinearUpdate) -> Tensor:
    """timm's ``Mlp`` with updates of its linear layers; any other module as it is."""
    if type(mlp) is not Mlp:
        as_it_is_BND: Tensor = mlp(y_BND)
        return as_it_is_BND
    hidden = mlp.norm(mlp.act(update("fc1", y_BND, mlp.fc1(y_BND))))
    return update("fc2", hidden, mlp.fc2(hidden))


def _mlp_lean(mlp: Any, y_BND: Tensor, update: LinearUpdate | None) -> Tensor:
    """``_mlp`` with its GELU in place."""
    if type(mlp) is not Mlp or not isinstance(mlp.act, nn.GELU):
        as_it_is_BND: Tensor = mlp(y_BND) if update is None else _mlp(mlp, y_BND, update)
        return as_it_is_BND
    hidden = _updated(update, "fc1", y_BND, mlp.fc1(y_BND))
    hidden = mlp.norm(torch.ops.aten.gelu_(hidden, approximate=mlp.act.approximate))
    return _updated(update, "fc2", hidden, mlp.fc2(hidden))


def cls_attention_logits(q_BHNE: Tensor, k_BHNE: Tensor) -> Tensor:
    """Attention logits of CLS to each image token, mean over heads: ``B,N``."""
    # The mean over heads of products over E is one product over all of D.
    q_BD1 = q_BHNE[:, :, 0].flatten(1).unsqueeze(-1)
    logits_BN: Tensor = (k_BHNE.transpose(1, 2).flatten(2) @ q_BD1).squeeze(-1)
    scaled_BN: Tensor = logits_BN * (q_BHNE.shape[-1] ** -0.5 / q_BHNE.shape[1])
    return scaled_BN


def cls_attention_shares(block: Block, y_BND: Tensor, update: LinearUpdate | None = None) -> Tensor:
    """Attention of CLS to the other image tokens, mean over heads: ``B,N-1``, summing to 1.

    What goes to CLS itself is left out, and so is what goes to prompts: their softmax is another one.

    Args:
        block: The block in which it attends.
        y_BND: Input of the block's attention, after the norm.
        update: Low-rank updates of the block.
    """
    q_BH1E = project_queries(block, y_BND[:, :1], update)
    k_BHNE, _ = project_keys_values(block, y_BND, update)
    logits_BH1N = (q_BH1E * q_BH1E.shape[-1] ** -0.5) @ k_BHNE.transpose(-2, -1)
    logits_BHN = logits_BH1N[:, :, 0].float()
    others_BHX = logits_BHN[:, :, 1:]
    # Each head counts by what it leaves to the others, which is too little for a quotient of plain numbers
    # where CLS attends to itself alone.
    left_BH = (others_BHX.logsumexp(dim=-1) - logits_BHN.logsumexp(dim=-1)).softmax(dim=1)
    shares_BX: Tensor = (left_BH.unsqueeze(-1) * others_BHX.softmax(dim=-1)).sum(dim=1)
    return shares_BX


def gather_tokens(x_BND: Tensor, index_BJ: Tensor) -> Tensor:
    """The chosen tokens of each sample: ``B,J,D``."""
    return x_BND.gather(1, index_BJ.unsqueeze(-1).expand(-1, -1, x_BND.shape[-1]))
