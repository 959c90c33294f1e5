"""What tuning minimises: cross-entropy plus the prompt matching loss (paper: section 3.4)."""

from torch import Tensor
from torch.nn import functional as F

from ship.prompts import Prompt

__all__ = ["matching_loss", "total_loss"]


def matching_loss(prompts_BPD: Tensor, tokens_BJD: Tensor) -> Tensor:
    """How far the prompts end from what CLS looks at.

    For each prompt token out of the last block: one minus its highest cosine with any of the image tokens
    that CLS attends to most there; mean over prompts and samples. Zero without prompts.

    Args:
        prompts_BPD: Prompt tokens out of the last block, before the final norm.
        tokens_BJD: The chosen image tokens out of the last block.
    """
    if prompts_BPD.shape[1] == 0:
        return prompts_BPD.new_zeros(())
    cosine_BPJ = F.normalize(prompts_BPD, dim=-1) @ F.normalize(tokens_BJD, dim=-1).transpose(1, 2)
    return 1.0 - cosine_BPJ.amax(dim=-1).mean()


def total_loss(logits_BC: Tensor, labels_B: Tensor, matching: Tensor, prompt: Prompt) -> Tensor:
    """Cross-entropy + weight * matching; with the gated start also a penalty on open gates.

    AdamW moves a gate at full rate however faint its gradient is. The penalty gives the gradient of zero
    training error something to lose against, so that a gate opens only where it pays.
    """
    config = prompt.config
    loss = F.cross_entropy(logits_BC, labels_B) + config.matching_weight * matching
    if prompt.is_gated:
        loss = loss + config.gate_penalty * prompt.gate.square().sum()
    return loss
