"""Unequal class counts: the values of each remedy, and what it does for a rare class."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ship.backbone import Backbone
from ship.data import Split, TaskData
from ship.decision.calibration import fit_temperature
from ship.decision.choosing import choose_rule
from ship.evaluation.accuracy import evaluate_logits
from ship.settings.config import TuneConfig
from ship.tuning.balance import Balance
from ship.tuning.linear_probe import fit_linear_probe
from ship.tuning.run import tune
from tests.unit.ship.factory import QUICK, draw_stripes


def labels_of(*counts: int) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def balance_of(mode: str, *counts: int) -> Balance:
    return Balance.of(TuneConfig(balance=mode), labels_of(*counts), len(counts))


def test_weights_are_the_inverse_of_a_classs_share() -> None:
    balance = balance_of("weights", 6, 2)

    assert balance.weight_C is not None
    assert balance.weight_C.tolist() == pytest.approx([8 / (2 * 6), 8 / (2 * 2)])
    labels_B = labels_of(6, 2)
    assert float(balance.weight_C[labels_B].mean()) == pytest.approx(1.0)
    logits_BC = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    losses_B = F.cross_entropy(logits_BC, labels_B, reduction="none")
    assert balance.losses(logits_BC, labels_B).tolist() == pytest.approx(
        [*(2 / 3 * losses_B[:6]).tolist(), *(2.0 * losses_B[6:]).tolist()]
    )
    # Each class has the same say in the mean.
    by_class = (losses_B[:6].mean() + losses_B[6:].mean()) / 2
    assert float(balance.cross_entropy(logits_BC, labels_B)) == pytest.approx(float(by_class))


def test_prior_adds_the_log_of_each_share() -> None:
    balance = balance_of("prior", 6, 2)
    logits_BC, labels_B = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([1, 0])

    assert balance.log_prior_C.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])
    # exp(1)*0.75 and exp(2)*0.25; 0.75 and 0.25.
    first = math.log((math.e * 0.75 + math.e**2 * 0.25) / (math.e**2 * 0.25))
    assert balance.losses(logits_BC, labels_B).tolist() == pytest.approx([first, -math.log(0.75)])


@pytest.mark.parametrize("mode", ["none", "weights", "prior"])
def test_calibrated_losses_are_the_same_however_sure_the_scores_are(mode: str) -> None:
    balance, labels_B = balance_of(mode, 60, 20), labels_of(60, 20)
    noise_BC = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    logits_BC = F.one_hot(labels_B, 2) + noise_BC
    plain, sure = (scale * logits_BC for scale in (1.0, 8.0))

    assert float(balance.cross_entropy(sure, labels_B)) > 2 * float(balance.cross_entropy(plain, labels_B))
    calibrated = [float(balance.calibrated_losses(each, labels_B).mean()) for each in (plain, sure)]
    assert calibrated[1] == pytest.approx(calibrated[0], rel=0.02)


@pytest.mark.parametrize("mode", ["weights", "prior"])
def test_losses_are_calibrated_as_what_is_published_is(mode: str) -> None:
    balance, labels_B = balance_of(mode, 60, 20), labels_of(60, 20)
    logits_BC = torch.randn(80, 2, generator=torch.Generator().manual_seed(0)) + 2 * F.one_hot(labels_B, 2)
    rule = choose_rule(("a", "b"), logits_BC, labels_B, cross_fits=False, balanced_scores=True)

    assert balance.balanced_scores
    # Shares of these very images, but for half an image that a rule counts more.
    published_B = balance.losses(logits_BC / rule.temperature, labels_B)
    assert balance.calibrated_losses(logits_BC, labels_B).tolist() == pytest.approx(
        published_B.tolist(), rel=0.02, abs=0.01
    )


def test_without_a_remedy_losses_are_calibrated_by_the_scores_alone() -> None:
    balance, labels_B = balance_of("none", 60, 20), labels_of(60, 20)
    logits_BC = torch.randn(80, 2, generator=torch.Generator().manual_seed(0)) + 2 * F.one_hot(labels_B, 2)
    expected_B = F.cross_entropy(logits_BC / fit_temperature(logits_BC, labels_B), labels_B, reduction="none")

    assert not balance.balanced_scores
    assert torch.equal(balance.calibrated_losses(logits_BC, labels_B), expected_B)


@pytest.mark.parametrize(
    ("counts", "is_adjusted"),
    [((3, 9), False), ((3, 10), True), ((5, 5, 5), False), ((0, 5, 6), False), ((0, 2, 7), True)],
)
def test_auto_steps_in_above_three_to_one(counts: tuple[int, ...], is_adjusted: bool) -> None:
    balance = balance_of("auto", *counts)

    assert balance.weight_C is None
    assert bool(balance.log_prior_C.any()) == is_adjusted
    assert bool(balance.log_prior_C.isfinite().all())
    assert not balance_of("none", *counts).log_prior_C.any()


def test_a_class_without_images_has_a_finite_loss() -> None:
    for mode in ("prior", "weights"):
        balance = balance_of(mode, 4, 0)
        assert bool(balance.losses(torch.zeros(2, 2), torch.tensor([0, 1])).isfinite().all())


def rare(num_common: int, num_rare: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two clouds, 1.5 standard deviations apart on one of eight features."""
    features_NF = torch.randn(num_common + num_rare, 8, generator=torch.Generator().manual_seed(seed))
    labels_N = labels_of(num_common, num_rare)
    features_NF[:, 0] += 1.5 * labels_N
    return features_NF, labels_N


def test_the_probe_finds_the_rare_class() -> None:
    features_NF, labels_N = rare(500, 10, seed=0)
    tested_NF, tested_N = rare(2000, 2000, seed=1)
    found = {}
    for mode in ("none", "prior", "weights", "auto"):
        balance = Balance.of(TuneConfig(balance=mode), labels_N, 2)
        probe = fit_linear_probe(features_NF, labels_N, num_classes=2, balance=balance)
        found[mode] = evaluate_logits(probe.logits(tested_NF), tested_N)
    recall = {mode: evaluation.recalls[1] for mode, evaluation in found.items()}

    assert recall["none"] < 0.2
    assert min(recall["prior"], recall["weights"]) > 0.5
    assert recall["auto"] == recall["prior"]
    for mode in ("prior", "weights"):
        assert found[mode].balanced_accuracy > found["none"].balanced_accuracy + 0.1


def uneven() -> TaskData:
    """Fifty pictures of one kind of stripes for one of the other; as many of both to test on."""
    drawn = draw_stripes(204, 2, seed=0)
    chosen_B = (drawn.labels_B == 0) | (torch.arange(204) < 5)
    return TaskData(
        labels=("common", "rare"),
        train=drawn.take(chosen_B),
        val=None,
        test=draw_stripes(80, 2, seed=1),
        fingerprint="0" * 64,
    )


def test_the_adapter_finds_the_rare_class(backbone: Backbone) -> None:
    data = uneven()
    assert torch.bincount(data.train.labels_B).tolist() == [102, 2]
    recall = {}
    for mode in ("none", "prior", "weights"):
        result = tune(backbone, data, TuneConfig(**{**QUICK, "balance": mode, "num_attribute": 0}))
        recall[mode] = result.evaluation.recalls[1] or 0.0
        assert result.preparation.probe_balanced_accuracy > 0.0

    assert recall["none"] < 0.5
    assert min(recall["prior"], recall["weights"]) > recall["none"] + 0.1


def test_a_class_without_training_pictures_is_tuned_and_measured(backbone: Backbone) -> None:
    def without(split: Split, label: int) -> Split:
        return split.take(split.labels_B != label)

    whole = draw_stripes(30, 3, seed=0)
    test = draw_stripes(18, 3, seed=1)
    data = TaskData(
        labels=("a", "b", "c"), train=without(whole, 2), val=None, test=test, fingerprint="0" * 64
    )
    for settings in ({}, {"kind": "lora"}, {"kind": "probe", "head": "layers"}, {"balance": "weights"}):
        result = tune(backbone, data, TuneConfig(**{**QUICK, **settings}))
        assert result.evaluation.recalls[2] == 0.0
        assert result.evaluation.recalls[0] is not None
        assert bool(result.losses_B.isfinite().all())
        assert len(result.losses_B) == 18
    assert "c" not in {data.labels[i] for i in data.train.labels_B.tolist()}
