import hashlib
from collections.abc import Callable

import pytest
import torch

from ship.backbone import Backbone
from ship.data import TaskData
from ship.errors import ArtifactError, ConfigError, TuningError
from ship.settings.config import TuneConfig, count_epochs
from ship.tuning.run import EpochReport, TuneResult, tune
from ship.tuning.schedule import learning_rate_at
from tests.unit.ship.factory import make_backbone, make_data

Quick = Callable[..., TuneConfig]


def weights(result: TuneResult) -> dict[str, torch.Tensor]:
    return result.prompt.state_dict()


def assert_same_weights(a: TuneResult, b: TuneResult) -> None:
    assert all(torch.equal(value, weights(b)[key]) for key, value in weights(a).items())


def backbone_bytes(backbone: Backbone) -> str:
    digest = hashlib.sha256()
    for value in backbone.vit.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("start", ["gated", "published"])
def test_tuning_learns_and_leaves_the_backbone_alone(
    backbone: Backbone, data: TaskData, quick: Quick, start: str
) -> None:
    before = backbone_bytes(backbone)
    result = tune(backbone, data, quick(start=start, epochs=20, learning_rate=0.01))
    assert backbone_bytes(backbone) == before
    assert all(weight.grad is None and not weight.requires_grad for weight in backbone.vit.parameters())
    assert not backbone.vit.training
    assert result.history[-1].loss < 0.9 * result.history[0].loss
    assert result.history[-1].train_accuracy > 0.8


def test_only_the_gated_start_learns_gates(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    published = tune(backbone, data, quick(start="published", attention_scale=0.2))
    assert torch.equal(published.prompt.gate, torch.full((4,), 0.2))
    gated = tune(backbone, data, quick())
    assert bool((gated.prompt.gate >= 0).all())
    assert bool((gated.prompt.gate > 0).any())


def test_the_gated_start_is_the_linear_probe(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    barely = tune(backbone, data, quick(epochs=1, learning_rate=1e-9))
    assert barely.evaluation.accuracy == barely.preparation.probe_accuracy


def test_a_seed_repeats_bit_for_bit_and_another_does_not(
    backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    first, second = (tune(backbone, data, quick(seed=3)) for _ in range(2))
    assert_same_weights(first, second)
    assert [report.loss for report in first.history] == [report.loss for report in second.history]
    other = tune(backbone, data, quick(seed=4))
    assert not torch.equal(weights(first)["independent"], weights(other)["independent"])


def test_a_resumed_tuning_ends_where_an_uninterrupted_one_does(
    backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    config = quick(epochs=6)
    whole = tune(backbone, data, config)
    snapshots: list[bytes] = []

    def die_in_epoch_5(report: EpochReport) -> None:
        if report.epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(
            backbone,
            data,
            config,
            on_epoch=die_in_epoch_5,
            on_snapshot=snapshots.append,
            snapshot_every=2,
        )
    assert len(snapshots) == 2
    epochs: list[int] = []
    resumed = tune(
        backbone, data, config, resume=snapshots[-1], on_epoch=lambda report: epochs.append(report.epoch)
    )
    assert epochs == [5, 6]
    assert_same_weights(whole, resumed)
    assert len(whole.history) == config.epochs
    assert [report.loss for report in whole.history] == [report.loss for report in resumed.history]
    assert resumed.preparation == whole.preparation
    assert whole.preparation is not None


def test_a_snapshot_of_another_tuning_or_a_damaged_one_is_refused(
    backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    snapshots: list[bytes] = []
    tune(backbone, data, quick(), on_snapshot=snapshots.append, snapshot_every=2)
    for config, content, what in [
        (quick(seed=9), snapshots[0], "other data, settings or backbone"),
        (quick(), snapshots[0][:-50], "damaged"),
        (quick(), b"", "damaged"),
        (quick(), b"\x80\x04pickle" * 9, "damaged"),
    ]:
        with pytest.raises(ArtifactError, match=what):
            tune(backbone, data, config, resume=content)


def test_a_loss_that_is_not_finite_ends_the_tuning(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    with pytest.raises(TuningError, match="lower learning_rate"):
        tune(backbone, data, quick(matching_weight=1e308, learning_rate=10.0, epochs=20))


@pytest.mark.parametrize(
    ("depth", "settings"),
    [
        (1, {}),
        (2, {"threshold": 1.0}),
        (4, {"threshold": -1.0}),
        (4, {"num_independent": 0}),
        (4, {"num_shared": 0}),
        (4, {"num_attribute": 0}),
        (4, {"num_attribute_groups": 0}),
        (4, {"num_independent": 0, "num_shared": 0, "num_attribute": 0}),
        (4, {"threshold": "auto"}),
        (4, {"batch_size": 1, "epochs": 1}),
        (4, {"batch_size": 23, "epochs": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("start", ["gated", "published"])
def test_the_edges_work(depth: int, settings: dict, start: str, quick: Quick) -> None:
    data = make_data()
    result = tune(make_backbone(depth=depth), data, quick(**settings, start=start))
    assert len(result.history) == quick(**settings).epochs
    assert all(torch.isfinite(value).all() for value in weights(result).values())


def test_one_image_a_class_works(backbone: Backbone, quick: Quick) -> None:
    result = tune(backbone, make_data(num_train=2, num_classes=2), quick())
    assert result.prompt.prototypes.shape[0] == 2


def test_more_attribute_tokens_than_image_tokens_are_refused(
    backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    with pytest.raises(ConfigError, match="num_attribute: expected at most 17"):
        tune(backbone, data, quick(num_attribute=18))


def test_a_validation_split_is_reported_each_epoch(backbone: Backbone, quick: Quick) -> None:
    result = tune(backbone, make_data(num_val=6), quick())
    assert len(result.history) == quick().epochs
    assert all(report.val_accuracy is not None for report in result.history)


def test_min_steps_is_a_floor_on_steps() -> None:
    config = TuneConfig(epochs=3, batch_size=8, min_steps=20)
    assert count_epochs(config, num_images=16) == 10
    assert count_epochs(config, num_images=800) == 3


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    config = TuneConfig(learning_rate=0.1, warmup_epochs=10)
    rates = [learning_rate_at(config, progress, 100, 2) for progress in range(101)]
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(0.05)
    assert max(rates) == rates[10] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_warm_up_takes_ten_steps_however_few_the_epochs() -> None:
    config = TuneConfig(learning_rate=0.1)
    assert learning_rate_at(config, 0.5, 5, 8) == pytest.approx(0.1 * 4 / 10)
    assert learning_rate_at(config, 10 / 8, 5, 8) == pytest.approx(0.1)
    assert learning_rate_at(config, 1.0, 4, 1) == pytest.approx(0.05), "half of all steps at most"
