"""Losses of tuning: cross-entropy plus the prompt matching loss (paper: section 3.4)."""

from torch import Tensor
from torch.nn import functional as F

from ship.method.prompts import Prompt

__all__ = ["matching_loss", "total_loss"]


def matching_loss(prompts_BPD: Tensor, tokens_BJD: Tensor) -> Tensor:
    """Prompt matching loss: the prompts' distance from the image tokens that CLS attends to.

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


def total_loss(cross_entropy: Tensor, matching: Tensor, prompt: Prompt, head_start_CF: Tensor) -> Tensor:
    """Cross-entropy + weight * matching; with the gated start also a price on leaving that start.

    AdamW moves a weight at full rate however faint its gradient is. The penalties on open gates and on the
    head's distance from the linear probe give the gradient of near-zero training error something to lose
    against, so that a task that the probe already answers stays as it is.

    Args:
        cross_entropy: Mean over the step's images.
        matching: The matching loss.
        prompt: Gives settings, gates and head.
        head_start_CF: The head's weight before the first step.
    """
    config = prompt.config
    loss = cross_entropy + config.matching_weight * matching
    if prompt.is_gated:
        loss = loss + config.gate_penalty * prompt.gate.square().sum()
        loss = loss + config.head_penalty * (prompt.head.weight - head_start_CF).square().sum()
    return loss
