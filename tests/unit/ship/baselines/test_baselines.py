"""The baselines are what their papers and PEFT say, and train as SHIP is tuned."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.baselines.adapters import LoraAdapter, VptAdapter, make_adapter
from ship.baselines.config import METHODS, BaselineConfig
from ship.baselines.fitting import fit_baseline
from ship.data import TaskData
from ship.errors import ConfigError, TuningError
from ship.tuning.preparation import bare_features, extract_features, fit_probe
from ship.tuning.schedule import order_epoch
from tests.unit.ship.factory import DEPTH, WIDTH, make_data

QUICK: dict[str, Any] = {"epochs": 6, "batch_size": 8, "num_tokens": 3, "rank": 2, "precision": "float32"}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_low_ranks_and_full_fine_tuning_start_as_the_bare_backbone(
    method: Any, backbone: Backbone, images: Tensor
) -> None:
    images = backbone.normalise(images)
    adapter = make_adapter(backbone, BaselineConfig(method=method), seeded())
    torch.testing.assert_close(adapter(backbone, images), backbone.vit(images), atol=0, rtol=0)


def test_deep_prompts_are_fresh_at_every_layer_beside_the_image_tokens(
    backbone: Backbone, images: Tensor
) -> None:
    images = backbone.normalise(images)
    adapter = VptAdapter(backbone, 3, is_deep=True, generator=seeded())
    z = backbone.embed(images)
    for block, tokens in zip(backbone.blocks, adapter.tokens_LPD, strict=True):
        # After CLS, as in the paper's figure 2.
        placed = torch.cat([z[:, :1], tokens.expand(len(z), -1, -1), z[:, 1:]], dim=1)
        z = torch.cat([(out := block(placed))[:, :1], out[:, 4:]], dim=1)
    # Softmax sums in another order.
    torch.testing.assert_close(adapter(backbone, images), backbone.norm(z)[:, 0], atol=1e-5, rtol=0)


def test_shallow_prompts_travel_on_from_the_first_layer(backbone: Backbone, images: Tensor) -> None:
    images = backbone.normalise(images)
    adapter = VptAdapter(backbone, 3, is_deep=False, generator=seeded())
    z = backbone.embed(images)
    z = backbone.vit.blocks(torch.cat([z, adapter.tokens_LPD[0].expand(len(z), -1, -1)], dim=1))
    torch.testing.assert_close(adapter(backbone, images), backbone.norm(z)[:, 0], atol=1e-5, rtol=0)


def test_lora_is_that_of_peft(backbone: Backbone, images: Tensor) -> None:
    import copy

    from peft import LoraConfig, get_peft_model

    adapter = LoraAdapter(backbone, 2, generator=seeded())
    torch.nn.init.normal_(adapter.up_LOr, std=0.1, generator=seeded())
    images = backbone.normalise(images)
    model = get_peft_model(copy.deepcopy(backbone.vit), LoraConfig(r=2, lora_alpha=2, target_modules=["qkv"]))
    for layer, block in enumerate(model.base_model.model.blocks):
        block.attn.qkv.lora_A["default"].weight.data = adapter.down_LrD[layer].data
        block.attn.qkv.lora_B["default"].weight.data = adapter.up_LOr[layer].data
    ours = adapter(backbone, images)
    torch.testing.assert_close(ours, model(images), atol=1e-5, rtol=0)
    assert not torch.allclose(ours, backbone.vit(images)), "the hooks did nothing, or are still there"


NUM_TRAINED = {
    "vpt-shallow": 3 * WIDTH,
    "vpt-deep": DEPTH * 3 * WIDTH,
    "lora": DEPTH * 2 * (WIDTH + 3 * WIDTH),
}


@pytest.mark.parametrize("method", METHODS)
def test_each_learns_repeats_by_its_seed_and_leaves_the_backbone_alone(
    method: Any, backbone: Backbone
) -> None:
    data = make_data(num_train=48, num_val=12)
    before = {key: value.clone() for key, value in backbone.vit.state_dict().items()}
    config = BaselineConfig(method=method, head_start="zero", learning_rate=3e-3, **{**QUICK, "epochs": 12})
    first, second = (fit_baseline(backbone, data, config) for _ in range(2))
    assert first.losses[-1] < 0.8 * first.losses[0]
    assert first.evaluation.accuracy > 0.5
    assert first.val_accuracy is not None
    assert (first.losses, first.evaluation) == (second.losses, second.evaluation)
    assert all(torch.equal(value, before[key]) for key, value in backbone.vit.state_dict().items())
    head = 3 * WIDTH + 3
    assert first.num_trained == head + NUM_TRAINED.get(method, backbone.info.num_params)


def test_a_warm_head_starts_from_the_linear_probe(backbone: Backbone, data: TaskData) -> None:
    features = extract_features(backbone, data)
    probe = fit_probe(data, bare_features(backbone, features.train))
    # A step too small to be seen in float32.
    config = BaselineConfig(method="lora", learning_rate=1e-12, **{**QUICK, "epochs": 1})
    with torch.no_grad():
        logits = probe.logits(backbone.norm(features.held_out.cls_LND[-1]))
    expected = float((logits.argmax(dim=1) == data.held_out.labels_B).float().mean())
    assert fit_baseline(backbone, data, config, features).evaluation.accuracy == pytest.approx(expected)
    cold = fit_baseline(backbone, data, replace(config, head_start="zero"))
    assert cold.losses[0] == pytest.approx(torch.log(torch.tensor(3.0)).item(), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_trains_the_same_numbers_in_float32(method: Any, backbone: Backbone, data: TaskData) -> None:
    config = BaselineConfig(method=method, **QUICK)
    exact = fit_baseline(backbone, data, config)
    half = fit_baseline(backbone, data, replace(config, precision="bfloat16"))
    # Eight bits of mantissa in activations.
    assert half.losses[0] == pytest.approx(exact.losses[0], rel=0.1, abs=0.02)


def test_a_loss_that_is_not_finite_says_what_to_do(backbone: Backbone, data: TaskData) -> None:
    poisoned = Backbone(backbone.cast(torch.float64).vit.float(), backbone.info)
    with torch.no_grad():
        poisoned.vit.norm.weight.fill_(float("nan"))
    config = BaselineConfig(method="vpt-deep", head_start="zero", **QUICK)
    with pytest.raises(TuningError, match="vpt-deep: the loss is not finite in epoch 1; lower learning_rate"):
        fit_baseline(poisoned, data, config)


def test_wrong_settings_are_all_named_at_once() -> None:
    wrong: dict[str, Any] = {"method": "prompting", "rank": 0, "learning_rate": float("nan")}
    with pytest.raises(ConfigError) as caught:
        BaselineConfig(**wrong)
    assert len(caught.value.problems) == 3


def test_every_image_is_in_one_batch_of_an_epoch() -> None:
    batches = order_epoch(seed=1, epoch=2, num_images=10, batch_size=4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert torch.cat(batches).tolist() != torch.cat(order_epoch(1, 3, 10, 4)).tolist()
