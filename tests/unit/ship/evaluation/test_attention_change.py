import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.data import TaskData
from ship.evaluation.accuracy import evaluate_logits
from ship.evaluation.attention_change import measure_attention
from ship.findings import find_warnings
from ship.method.attention import cls_attention_shares
from ship.method.prompts import Prompt
from ship.settings.config import TuneConfig
from ship.tuning.run import tune


@pytest.fixture
def prompt(backbone: Backbone, data: TaskData, quick: Callable[..., TuneConfig]) -> Prompt:
    return tune(backbone, data, quick(epochs=1)).prompt


def test_closed_gates_change_no_attention(backbone: Backbone, prompt: Prompt, images: Tensor) -> None:
    with torch.no_grad():
        prompt.gate.zero_()
    change = measure_attention(backbone, prompt, images)

    assert change.distance == pytest.approx(0.0, abs=1e-5)
    assert change.entropy_L == pytest.approx(change.bare_entropy_L, abs=1e-5)


def test_open_gates_turn_attention_from_the_second_layer_on(
    backbone: Backbone, prompt: Prompt, images: Tensor
) -> None:
    with torch.no_grad():
        prompt.gate.fill_(0.5)
    change = measure_attention(backbone, prompt, images)

    assert len(change.distance_L) == backbone.info.depth
    # The first layer asks before anything was mixed in.
    assert change.distance_L[0] == pytest.approx(0.0, abs=1e-5)
    assert all(0.001 < distance < 1.0 for distance in change.distance_L[1:])


def test_attention_is_that_of_the_backbones_own_blocks(
    backbone: Backbone, prompt: Prompt, images: Tensor
) -> None:
    found = measure_attention(backbone, prompt, images).bare_entropy_L

    z_BND = backbone.embed(backbone.normalise(images))
    with torch.no_grad():
        for layer, block in enumerate(backbone.blocks):
            attention = block.attn
            qkv = attention.qkv(block.norm1(z_BND)).unflatten(-1, (3, attention.num_heads, -1))
            q_BNHE, k_BNHE, _ = qkv.unbind(2)
            logits_BHN = torch.einsum("bhe,bnhe->bhn", q_BNHE[:, 0], k_BNHE) / math.sqrt(q_BNHE.shape[-1])
            share_BX = logits_BHN.softmax(-1).mean(1)[:, 1:]
            share_BX = share_BX / share_BX.sum(1, keepdim=True)
            entropy = -(share_BX * share_BX.log()).sum(1).mean() / math.log(share_BX.shape[1])
            assert found[layer] == pytest.approx(float(entropy), abs=1e-5)
            z_BND = block(z_BND)


def test_one_image_is_enough(backbone: Backbone, prompt: Prompt, images: Tensor) -> None:
    one, twice = (measure_attention(backbone, prompt, images[:1].repeat(n, 1, 1, 1)) for n in (1, 2))
    assert one == twice


def test_calibration_error_of_known_probabilities() -> None:
    # Sure at 0.75, and right in half of the cases; sure at 0.95, and always right.
    probabilities = torch.tensor([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 2)
    labels_B = torch.tensor([0, 0, 1, 1, 1, 1])

    found = evaluate_logits(probabilities.log(), labels_B)

    assert found.calibration_error == pytest.approx((4 * 0.25 + 2 * 0.05) / 6)
    assert found.recalls == [1.0, 0.5]


def test_a_class_without_images_has_no_recall() -> None:
    assert evaluate_logits(torch.eye(3)[:2], torch.tensor([0, 1])).recalls == [1.0, 1.0, None]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attention_distance": 0.3, "accuracy": 0.9}, "moves 30% of the class token's attention"),
        ({"min_recall": 0.25}, "only 25% of its held-out images"),
        ({"calibration_error": 0.2}, "off by 0.20"),
        ({"num_test": 12}, "12 held-out images"),
    ],
)
def test_warnings(changed: dict[str, float], said: str) -> None:
    good = {
        "accuracy": 0.95,
        "probe_accuracy": 0.9,
        "attention_distance": 0.05,
        "min_recall": 0.9,
        "calibration_error": 0.02,
        "num_test": 100,
    }
    assert find_warnings(good) == find_warnings({}) == []
    [warning] = find_warnings({**good, **changed})
    assert said in warning


def test_attention_that_turns_and_gains_is_no_warning() -> None:
    metrics = {"attention_distance": 0.6, "accuracy": 0.95, "probe_accuracy": 0.9}
    assert find_warnings(metrics) == []


def test_attention_to_cls_alone_leaves_shares_of_the_others(backbone: Backbone, images: Tensor) -> None:
    """In float32 the others have none left: a quotient of theirs would be no number."""
    block, num_tokens = copy.deepcopy(backbone.blocks[0]), backbone.info.num_tokens
    width = backbone.info.width
    with torch.no_grad():
        # Query and key are the token itself, and CLS is far from all others.
        block.attn.qkv.weight.zero_()
        block.attn.qkv.weight[: 2 * width] = torch.eye(width).repeat(2, 1)
        block.attn.qkv.bias.zero_()
    y_BND = torch.zeros(1, num_tokens, width)
    y_BND[:, 0] = 100.0
    y_BND[:, 1] = 0.01
    shares_BX = cls_attention_shares(block, y_BND)
    assert shares_BX.sum().item() == pytest.approx(1.0)
    # exp of 0.01 * 100 summed over the widths of a head, and scaled, against exp(0).
    per_head = width // backbone.info.num_heads
    first = math.exp(per_head**0.5)
    assert shares_BX[0, 0].item() == pytest.approx(first / (first + num_tokens - 2), rel=1e-5)
