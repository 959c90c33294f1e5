"""The optimizer of a tuning: AdamW, with a learning rate of its own for each kind of weight."""

import torch
from torch import Tensor

from ship.method.prompts import Prompt

__all__ = ["head_rate_scale", "make_optimizer", "step_or_nothing"]

_MAX_GATE_SCALE = 10.0
_MAX_SCORE_STEP = 1 / 3


def make_optimizer(prompt: Prompt) -> torch.optim.AdamW:
    """AdamW in groups; the schedule multiplies the learning rate by a group's ``rate_scale``.

    AdamW moves a number by about the learning rate a step, whatever its gradient is. A gate has to come from
    zero to some tenths while a prompt token adjusts by hundredths, and a low-rank weight by thousandths.
    """
    config = prompt.config
    scales = {"tokens": 1.0, "gate": 1.0, "head": 1.0, "low_rank": config.low_rank_rate_scale}
    if prompt.is_gated:
        scales["gate"] = min(_MAX_GATE_SCALE, config.gate_rate / config.learning_rate)
        scales["head"] = head_rate_scale(config.learning_rate, prompt.head.in_features)
    groups: dict[str, list[Tensor]] = {name: [] for name in scales}
    for name, weight in prompt.named_parameters():
        if weight.requires_grad:
            part = name.split(".")[0]
            groups[part if part in scales else "tokens"].append(weight)
    return torch.optim.AdamW(
        [{"params": weights, "rate_scale": scales[name]} for name, weights in groups.items() if weights],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )


def head_rate_scale(learning_rate: float, num_features: int) -> float:
    """Share of the learning rate at which a head's weights move.

    A score sums over all features, standardised, so that a step of Adam moves it by up to about
    ``rate * num_features``: the rate is capped so that this is a third.
    """
    return min(1.0, _MAX_SCORE_STEP / (num_features * learning_rate))


@torch.no_grad()
def step_or_nothing(optimizer: torch.optim.Optimizer) -> None:
    """Take a step, or leave weights and moments as they were and raise what came in between.

    A step asks for memory on its way: for the moments at first, for what comes and goes later. Where that is
    refused, some weights have moved and others have not. So all are copied before it; to copy them back needs
    no memory.
    """
    known = set(optimizer.state)
    changing = [weight for group in optimizer.param_groups for weight in group["params"]]
    changing += [value for moments in optimizer.state.values() for value in moments.values()]
    before = [value.detach().clone() for value in changing]
    try:
        optimizer.step()
    except BaseException:
        for value, kept in zip(changing, before, strict=True):
            value.copy_(kept)
        for weight in set(optimizer.state) - known:
            del optimizer.state[weight]
        raise
