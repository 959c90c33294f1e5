"""Small parts of the method against cases worked out by hand."""

import pickle

import pytest
import torch

from ship.errors import ConfigError, ImageError, ShipError
from ship.evaluation.accuracy import evaluate_logits, wilson_interval
from ship.method.hierarchy import auto_threshold, find_level_starts, layer_affinity
from ship.method.losses import matching_loss, total_loss
from ship.method.prompts import Prompt
from ship.method.prototypes import find_prototypes
from ship.method.streams import attribute_tokens
from ship.settings.config import TuneConfig
from ship.tuning.balance import Balance
from ship.tuning.linear_probe import fit_linear_probe


def test_affinity_is_the_mean_cosine_between_layers() -> None:
    f_LND = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [1.0, 0.0]]])
    torch.testing.assert_close(layer_affinity(f_LND), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))


def test_a_level_is_compared_with_its_own_first_layer() -> None:
    affinity = torch.eye(4)
    affinity[0, 1], affinity[0, 2], affinity[2, 3] = 0.96, 0.90, 0.97
    affinity[1, 2] = 0.99  # close to its neighbour, far from the level's first layer
    assert find_level_starts(affinity, 0.95) == [0, 2]
    assert find_level_starts(affinity, -1.0) == [0]
    assert find_level_starts(affinity, 1.0) == [0, 1, 2, 3]


def test_auto_threshold_is_the_median_of_neighbours() -> None:
    affinity = torch.eye(4, dtype=torch.float64)
    for layer, value in enumerate([0.99, 0.5, 0.97]):
        affinity[layer, layer + 1] = value
    assert auto_threshold(affinity) == pytest.approx(0.97)
    assert auto_threshold(torch.eye(1)) == 1.0


def test_attribute_tokens_mix_prototypes_by_the_tokens_that_cls_attends_to() -> None:
    z_BND = torch.tensor([[[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]])
    logits_BN = torch.tensor([[0.1, 3.0, 2.0]])
    prototypes = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    learned = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    found = attribute_tokens(z_BND, logits_BN, prototypes_RD=prototypes, attribute_AD=learned, mix=0.1)
    e = torch.e
    first = torch.tensor([2.0 * 1 / (1 + e), 4.0 * e / (1 + e)])  # token 1 points at prototype 1
    second = torch.tensor([2.0 / (1 + e), 4.0 * e / (1 + e)])  # token 2: cosines -1 and 0
    expected = torch.stack([0.1 * first + 0.9 * learned[0], 0.1 * second + 0.9 * learned[1]])
    torch.testing.assert_close(found[0], expected)


def test_matching_loss_takes_the_closest_token() -> None:
    prompts = torch.tensor([[[3.0, 0.0], [0.0, -2.0]]])
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    expected = 1.0 - (1.0 + 0.0) / 2  # best cosines: 1 and 0
    assert float(matching_loss(prompts, tokens)) == pytest.approx(expected)
    assert float(matching_loss(prompts[:, :0], tokens)) == 0.0


@pytest.mark.parametrize(("start", "price"), [("published", 0.0), ("gated", 0.02 * 5.0 + 0.1 * 16 * 0.25)])
def test_total_loss_with_gates_puts_a_price_on_leaving_the_start(start: str, price: float) -> None:
    config = TuneConfig(start=start, matching_weight=0.5, gate_penalty=0.02, head_penalty=0.1)
    prompt = Prompt(config, level_starts=[0], depth=2, prototypes_RD=torch.zeros(1, 4), num_classes=4)
    prompt.gate.data.copy_(torch.tensor([1.0, 2.0]))
    head_start = prompt.head.weight.detach() + 0.5
    loss = total_loss(torch.tensor(1.5), torch.tensor(0.6), prompt, head_start)
    assert loss.item() == pytest.approx(1.5 + 0.3 + price)


@pytest.mark.parametrize("num_images", [3, 4])
def test_few_distinct_images_are_the_prototypes_themselves(num_images: int) -> None:
    features = torch.arange(num_images * 2).float().view(num_images, 2)
    doubled = torch.cat([features, features])
    assert torch.equal(find_prototypes(doubled, num_prototypes=4, seed=0), features)


def test_more_images_are_clustered() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    found = find_prototypes(centres.repeat(20, 1) + noise, num_prototypes=3, seed=0)
    assert float(torch.cdist(centres, found).min(dim=1).values.max()) < 0.1


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_linear_probe_separates_what_a_line_separates(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % num_classes
    features = torch.randn(60, 6, generator=generator) + 8.0 * torch.eye(6)[labels] + 100.0
    balance = Balance.of(TuneConfig(), labels, num_classes)
    probe = fit_linear_probe(features, labels, num_classes=num_classes, balance=balance)
    assert probe.weight_CF.shape == (num_classes, 6)
    assert bool((probe.logits(features).argmax(1) == labels).all())
    again = fit_linear_probe(features, labels, num_classes=num_classes, balance=balance)
    assert torch.equal(probe.weight_CF, again.weight_CF)


@pytest.mark.parametrize("present", [(0, 2), (1,)])
def test_the_linear_probe_never_answers_a_class_that_it_has_not_seen(present: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(present).repeat(20)
    features = torch.randn(len(labels), 6, generator=generator) + 4.0 * torch.eye(6)[labels]
    balance = Balance.of(TuneConfig(), labels, 3)
    probe = fit_linear_probe(features, labels, num_classes=3, balance=balance)
    assert bool((probe.logits(features).argmax(1) == labels).all())


def test_wilson_interval() -> None:
    low, high = wilson_interval(8, 10)
    assert (low, high) == (pytest.approx(0.4901, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_evaluation_counts_by_truth() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0]])
    found = evaluate_logits(logits, torch.tensor([0, 1, 1]))
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.confusion_CC == [[1, 0], [1, 1]]


def test_all_bad_settings_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TuneConfig(epochs=0, learning_rate=float("nan"), start="cold", threshold="high", seed=True)
    found = {problem.split(":")[0] for problem in caught.value.problems}
    assert found == {"epochs", "learning_rate", "start", "threshold", "seed"}


def test_settings_come_back_and_unknown_ones_are_refused() -> None:
    config = TuneConfig(threshold=0.95, epochs=7)
    assert TuneConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="epoch: unknown setting"):
        TuneConfig.from_dict({"epoch": 7})


def test_settings_of_an_earlier_version_are_read_with_what_they_meant() -> None:
    added = ("kind", "head", "rank", "low_rank_on", "low_rank_rate_scale", "gate_rate", "augment", "balance")
    values = {name: value for name, value in TuneConfig(epochs=7).to_dict().items() if name not in added}
    values |= {"attention": "decoupled", "gate_rate_scale": 10.0}
    assert TuneConfig.from_dict(values) == TuneConfig(epochs=7, kind="ship", head="cls", balance="none")
    with pytest.raises(ConfigError, match="attention: expected `decoupled`, got 'joint'"):
        TuneConfig.from_dict({**values, "attention": "joint"})


def test_errors_survive_pickling_with_all_they_know() -> None:
    several = pickle.loads(pickle.dumps(ConfigError(["a", "b"])))
    assert several.problems == ("a", "b")
    assert str(several) == "2 problems:\n- a\n- b"
    image = pickle.loads(pickle.dumps(ImageError("x.png: broken", kind="too_large")))
    assert (image.kind, str(image), isinstance(image, ShipError)) == ("too_large", "x.png: broken", True)
