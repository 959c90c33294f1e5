"""``attention: joint``: one softmax over image and prompt tokens, to compare with the decoupled two."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.data import TaskData
from ship.errors import ConfigError
from ship.method.model import forward
from ship.method.prompts import Prompt
from ship.runtime.baking import bake
from ship.settings.config import TuneConfig
from ship.tuning.tune import tune
from tests.unit.ship.factory import DEPTH, WIDTH

Quick = Callable[..., TuneConfig]


@torch.no_grad()
def plain_logits(backbone: Backbone, prompt: Prompt, images_BCHW: Tensor) -> Tensor:
    """Every layer's prompts beside the image's tokens in timm's own attention; prompts skip it."""
    z_BND = backbone.embed(images_BCHW)
    num_image = z_BND.shape[1]
    static_PD = None
    for layer, block in enumerate(backbone.blocks):
        static_PD = prompt.static_tokens_at(layer, static_PD)
        p_BPD = static_PD.expand(len(z_BND), -1, -1)
        z_BND = block(torch.cat([z_BND, p_BPD], dim=1))[:, :num_image]
        p_1PD = static_PD.unsqueeze(0)
        p_1PD = p_1PD + block.attn.proj(block.norm1(p_1PD))
        static_PD = (p_1PD + block.mlp(block.norm2(p_1PD)))[0]
    return prompt.head(backbone.norm(z_BND[:, 0]))


@pytest.mark.parametrize("num_shared", [0, 2])
def test_joint_attention_is_that_of_the_plain_block(
    backbone: Backbone, quick: Quick, images: Tensor, num_shared: int
) -> None:
    exact = backbone.cast(torch.float64)
    config = quick(attention="joint", num_attribute=0, num_shared=num_shared)
    prompt = Prompt(
        config, level_starts=[0, 2], depth=DEPTH, prototypes_RD=torch.zeros(1, WIDTH), num_classes=3
    )
    prompt.initialise(torch.Generator().manual_seed(0))
    prompt = prompt.double()
    images_BCHW = exact.normalise(images)
    found = forward(exact, prompt, images_BCHW).logits_BC
    torch.testing.assert_close(found, plain_logits(exact, prompt, images_BCHW), atol=1e-10, rtol=1e-10)
    prompt.config = quick(num_attribute=0, num_shared=num_shared, start="published")
    assert not torch.allclose(forward(exact, prompt, images_BCHW).logits_BC, found)


def test_joint_attention_tunes_and_is_not_served(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    result = tune(backbone, data, quick(attention="joint", epochs=20, learning_rate=0.01))
    assert result.history[-1].loss < 0.9 * result.history[0].loss
    assert torch.equal(result.prompt.gate, torch.zeros(DEPTH)), "it has no gates"
    with pytest.raises(ConfigError, match="cannot be served"):
        bake(backbone, result.prompt)
