"""What each kind of adapter tunes, and that the tuner is safe whatever the backbone's features look like."""

import copy
from dataclasses import replace

import pytest
import torch

from ship.backbone import Backbone
from ship.data import TaskData
from ship.method.low_rank import LowRank, TaskUpdates
from ship.method.prompts import Prompt
from ship.tuning.optimizer import head_rate_scale, make_optimizer
from ship.tuning.preparation import extract_features, prepare
from ship.tuning.run import PackTask, TuneResult, tune, tune_pack
from tests.unit.ship.factory import make_data
from tests.unit.ship.tuning.packs import Quick

KINDS = ("probe", "ship", "lora", "ship+lora")


@pytest.fixture(scope="module")
def data() -> TaskData:
    return make_data()


@pytest.mark.parametrize("head", ["cls", "layers"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_tunes_its_parts_and_starts_from_the_linear_probe(
    kind: str, head: str, backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    barely = tune(backbone, data, quick(kind=kind, head=head, epochs=1, learning_rate=1e-9))
    assert barely.evaluation.accuracy == barely.preparation.probe_accuracy
    prompt = tune(backbone, data, quick(kind=kind, head=head)).prompt
    assert (prompt.shared.numel() > 0) == ("ship" in kind)
    assert bool((prompt.gate > 0).any()) == ("ship" in kind)
    assert (prompt.low_rank is not None) == ("lora" in kind)
    if prompt.low_rank is not None:
        assert bool((prompt.low_rank.up["qkv"] != 0).any())
    num_parts = 1 if head == "cls" else 2 * len(prompt.head_layers) + 1
    assert prompt.head.in_features == 32 * num_parts
    assert float(prompt.feature_mean.abs().max()) == 0.0, "a finished prompt reads raw features"


def test_a_probe_takes_no_step_and_reports_once(backbone: Backbone, quick: Quick) -> None:
    result = tune(backbone, make_data(num_val=9), quick(kind="probe", epochs=50))
    [report] = result.history
    assert (report.epoch, report.num_epochs, report.learning_rate) == (1, 1, 0.0)
    assert report.val_loss is not None


@pytest.mark.parametrize("settings", [{"kind": "ship+lora", "head": "layers", "augment": "light"}], ids=str)
def test_a_resumed_tuning_of_any_kind_ends_where_an_uninterrupted_one_does(
    settings: dict[str, str], backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    snapshots: list[bytes] = []
    config = quick(epochs=4, **settings)
    whole = tune(backbone, data, config, on_snapshot=snapshots.append, snapshot_every=2)
    resumed = tune(backbone, data, config, resume=snapshots[0])
    for key, value in whole.prompt.state_dict().items():
        assert torch.equal(value, resumed.prompt.state_dict()[key]), key


def shifted(backbone: Backbone) -> Backbone:
    """A backbone whose features lie far from zero and are large, as a real one's may be."""
    vit = copy.deepcopy(backbone.vit)
    with torch.no_grad():
        vit.norm.weight.mul_(20.0)
        vit.norm.bias.add_(100.0)
    return Backbone(vit, replace(backbone.info, fingerprint="f" * 64))


def test_features_far_from_zero_change_nothing(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    config = quick(precision="float32", kind="ship+lora")
    plain, far = (tune(each, data, config) for each in (backbone, shifted(backbone)))
    for ours, theirs in zip(plain.history, far.history, strict=True):
        # The same numbers but for rounding of features a hundred times as large.
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-2)


def test_one_step_of_a_head_moves_a_score_by_a_third_however_wide_it_is() -> None:
    for num_features in (128, 384, 2688):
        assert 0.02 * head_rate_scale(0.02, num_features) * num_features == pytest.approx(1 / 3)
    assert head_rate_scale(1e-4, 128) == 1.0, "never faster than the rate that was asked for"


def test_gates_stay_shares_of_attention(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    prompt = tune(backbone, data, quick(learning_rate=1.0, gate_rate=1.0, gate_penalty=0.0)).prompt
    gate = prompt.gate.detach()
    assert 0.0 <= float(gate.min()) <= float(gate.max()) <= 1.0


def test_each_kind_of_weight_has_its_rate(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    config = quick(kind="ship+lora", learning_rate=0.005)
    prompt, _ = prepare(backbone, data, config, extract_features(backbone, data))
    scales = {group_name(prompt, group): group["rate_scale"] for group in make_optimizer(prompt).param_groups}
    assert scales == {
        "independent": 1.0,
        "gate": pytest.approx(4.0),  # 0.02 in all
        "head": head_rate_scale(0.005, 32),
        "low_rank": 0.2,
    }


def group_name(prompt: Prompt, group: dict[str, list[torch.Tensor]]) -> str:
    names = {id(weight): name.split(".")[0] for name, weight in prompt.named_parameters()}
    return names[id(group["params"][0])]


def test_kinds_of_one_task_share_a_pack(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    configs = [quick(precision="float32", kind=kind, head="layers") for kind in KINDS]
    packed = tune_pack(backbone, [PackTask(data=data, config=config) for config in configs])
    for found, config in zip(packed, configs, strict=True):
        assert isinstance(found, TuneResult)
        alone = tune(backbone, data, config)
        assert found.history[-1].loss == pytest.approx(alone.history[-1].loss, rel=1e-5)


def test_a_linear_layer_without_an_update_is_not_copied() -> None:
    update = TaskUpdates([LowRank({"qkv": (4, 12)}, depth=1, rank=2), None], 0, [2, 1])
    x, out = torch.randn(3, 5, 4), torch.randn(3, 5, 16)
    assert update("fc1", x, out) is out
    assert update("qkv", x, torch.randn(3, 5, 12)).shape == (3, 5, 12)
