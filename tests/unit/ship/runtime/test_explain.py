"""The maps that a server draws from a slot are those that tuning measures on the prompt."""

import pytest
import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.evaluation.attention_change import attention_with_and_without
from ship.runtime.explain import explain
from ship.runtime.runtime import Runtime
from tests.unit.orchestrator.serve.factory import make_prompt
from tests.unit.ship.factory import make_backbone

# Another order of the same float32 sums.
CLOSE = {"atol": 1e-6, "rtol": 1e-4}


def test_both_maps_are_those_of_the_diagnosis(backbone: Backbone, images: Tensor) -> None:
    prompt, runtime = make_prompt(backbone, 3, seed=1), Runtime(backbone, capacity_bytes=16 << 20)
    turned_LBX, bare_LBX = attention_with_and_without(backbone, prompt, images)
    slot = runtime.insert(prompt)
    for number, image_3HW in enumerate(images):
        found = explain(runtime, image_3HW, slot)
        assert found.prompted_TYX.shape == found.bare_TYX.shape == (1, 4, 4)
        torch.testing.assert_close(found.prompted_TYX.flatten(), turned_LBX[-1, number], **CLOSE)
        torch.testing.assert_close(found.bare_TYX.flatten(), bare_LBX[-1, number], **CLOSE)
        assert found.distance > 0.001, "this prompt turns attention; maps that agree would prove nothing"
        assert found.prompted_TYX.sum() == pytest.approx(1.0, abs=1e-5)


def test_numbers_are_those_of_the_maps(backbone: Backbone, images: Tensor) -> None:
    runtime = Runtime(backbone, capacity_bytes=16 << 20)
    found = explain(runtime, images[0], runtime.insert(make_prompt(backbone, 3, seed=1)))
    moved = (found.prompted_TYX - found.bare_TYX).abs().sum() / 2
    assert found.distance == pytest.approx(float(moved), abs=1e-6)
    for map_YX, entropy in ((found.prompted_TYX, found.entropy), (found.bare_TYX, found.bare_entropy)):
        by_hand = -(map_YX * map_YX.log()).sum() / torch.tensor(16.0).log()
        assert entropy == pytest.approx(float(by_hand), abs=1e-5)


def test_register_tokens_are_no_patches(images: Tensor) -> None:
    backbone = make_backbone(reg_tokens=3)
    prompt, runtime = make_prompt(backbone, 3, seed=1), Runtime(backbone, capacity_bytes=16 << 20)
    _, bare_LBX = attention_with_and_without(backbone, prompt, images)
    assert bare_LBX.shape[-1] == 3 + 16
    patches_P = bare_LBX[-1, 0, 3:]
    found = explain(runtime, images[0], runtime.insert(prompt))
    torch.testing.assert_close(found.bare_TYX.flatten(), patches_P / patches_P.sum(), **CLOSE)


def test_maps_of_a_mixed_batch_are_those_of_rows_alone(backbone: Backbone, images: Tensor) -> None:
    runtime = Runtime(backbone, capacity_bytes=16 << 20)
    slots = [runtime.insert(make_prompt(backbone, 3, seed)) for seed in range(len(images))]
    together_BX = runtime.cls_attention(images, slots)
    for number, slot in enumerate(slots):
        alone_1X = runtime.cls_attention(images[number : number + 1], [slot])
        torch.testing.assert_close(together_BX[number : number + 1], alone_1X, **CLOSE)
