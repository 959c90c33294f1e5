"""Rows of a mixed batch equal rows served alone, and both equal the plain forward pass."""

import pytest
import torch
from torch import Tensor

from ship.artifact import probe_image
from ship.backbone import Backbone
from ship.baking import BakedPrompt, bake
from ship.config import TuneConfig
from ship.errors import ConfigError
from ship.model import forward
from ship.prompts import Prompt
from ship.runtime import Runtime

# Padded and batched matrix products add in another order.
TOLERANCE = 1e-5


def make_prompt(seed: int, level_starts: list[int], num_classes: int, **settings: object) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    config = TuneConfig(**{"num_independent": 3, "num_shared": 2, "num_attribute": 4, **settings})
    prototypes = torch.randn(7, 32, generator=generator)
    prompt = Prompt(
        config, level_starts=level_starts, depth=4, prototypes_RD=prototypes, num_classes=num_classes
    )
    prompt.initialise(generator)
    with torch.no_grad():
        prompt.gate.copy_(torch.rand(4, generator=generator) * 0.5)
        # Xavier over these small shapes is faint; a prompt that hardly acts would prove little.
        for tensor in (prompt.independent, prompt.shared, prompt.attribute):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return prompt.requires_grad_(False)


PROMPTS = {
    "three levels": make_prompt(1, [0, 1, 3], 3),
    "every layer a level": make_prompt(2, [0, 1, 2, 3], 5, num_independent=6),
    "two levels": make_prompt(3, [0, 2], 2),
    "one level": make_prompt(4, [0], 4),
    "no independent": make_prompt(5, [0, 1, 2], 3, num_independent=0),
    "attribute only": make_prompt(6, [0, 2, 3], 3, num_independent=0, num_shared=0),
    "no prompt tokens": make_prompt(7, [0, 2], 6, num_independent=0, num_shared=0, num_attribute=0),
    "other attribute count": make_prompt(8, [0, 1, 3], 2, num_attribute=9, num_shared=0),
}


@pytest.fixture(scope="module")
def baked(backbone: Backbone) -> dict[str, BakedPrompt]:
    return {name: bake(backbone, prompt) for name, prompt in PROMPTS.items()}


def plain(backbone: Backbone, prompt: Prompt, images: Tensor) -> Tensor:
    with torch.no_grad():
        return forward(backbone, prompt, backbone.normalise(images)).logits_BC


@pytest.mark.parametrize("name", PROMPTS)
def test_baked_answers_equal_the_plain_forward_pass(
    backbone: Backbone, baked: dict[str, BakedPrompt], images: Tensor, name: str
) -> None:
    found = Runtime(backbone).infer(images, [baked[name]] * len(images))
    expected = plain(backbone, PROMPTS[name], images)
    torch.testing.assert_close(torch.stack(found), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_prompts_change_the_answers(backbone: Backbone, images: Tensor) -> None:
    prompt = PROMPTS["three levels"]
    with torch.no_grad():
        bare = prompt.head(backbone.vit(backbone.normalise(images)))
    assert float((plain(backbone, prompt, images) - bare).abs().max()) > 0.05


def test_rows_of_a_mixed_batch_equal_rows_served_alone(
    backbone: Backbone, baked: dict[str, BakedPrompt], images: Tensor
) -> None:
    runtime = Runtime(backbone)
    names = list(PROMPTS) * 2
    rows = images[torch.arange(len(names)) % len(images)]
    mixed = runtime.infer(rows, [baked[name] for name in names])
    for row, name in enumerate(names):
        alone = runtime.infer(rows[row : row + 1], [baked[name]])[0]
        torch.testing.assert_close(mixed[row], alone, atol=TOLERANCE, rtol=TOLERANCE)
        assert mixed[row].shape == (PROMPTS[name].num_classes,)


def test_empty_and_unequal_batches(backbone: Backbone, baked: dict[str, BakedPrompt]) -> None:
    runtime = Runtime(backbone)
    image = probe_image(backbone.image_size)
    assert runtime.infer(image[:0], []) == []
    with pytest.raises(ValueError, match="a prompt for each of 1 images"):
        runtime.infer(image, [])


@pytest.mark.parametrize("level_starts", [[1, 2], [0, 2, 2], [0, 4], [0, 3, 1]])
def test_level_starts_that_cannot_be_are_refused(level_starts: list[int]) -> None:
    with pytest.raises(ConfigError, match="rising layer numbers"):
        make_prompt(0, level_starts, 2)


def test_attribute_groups_belong_to_the_last_levels_after_layer_0() -> None:
    groups = {name: PROMPTS[name].attribute.shape[0] for name in PROMPTS}
    assert groups["every layer a level"] == 2
    assert groups["two levels"] == 1
    assert groups["one level"] == 0
    entering = [PROMPTS["every layer a level"].attribute_group_at(layer) for layer in range(4)]
    assert entering == [None, None, 0, 1]
