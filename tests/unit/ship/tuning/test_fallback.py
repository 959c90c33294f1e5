"""The last word of a search: who takes whose place, by made-up losses of each validation image."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from ship.backbone import Backbone
from ship.data import TaskData
from ship.evaluation.accuracy import evaluate_logits
from ship.evaluation.prediction import Outputs
from ship.settings.config import TuneConfig
from ship.settings.search_config import AUTO, SearchConfig
from ship.tuning.member import PackTask, TuneResult
from ship.tuning.search import SearchResult, search
from tests.unit.ship.factory import make_data

# Loss of each image beyond the mean, so that pairs differ where means do not.
Loss = Callable[[TuneConfig], float]


class MadeUp:
    """Tunes nothing: the loss of an image is what a rule gives to the settings, and some noise."""

    def __init__(self, loss: Loss, spread: float = 0.0) -> None:
        self._loss, self._spread = loss, spread
        self.tuned: list[TuneConfig] = []

    def __call__(self, tasks: Sequence[PackTask]) -> list[TuneResult | Exception]:
        return [self._result(task) for task in tasks]

    def _result(self, task: PackTask) -> TuneResult:
        self.tuned.append(task.config)
        held_out = task.data.held_out
        own = torch.arange(len(held_out)) % 2 * 2.0 - 1.0
        losses_B = self._loss(task.config) + own * (self._spread if task.config.kind != "probe" else 0.0)
        logits_BC = torch.zeros(len(held_out), len(task.data.labels))
        return TuneResult(
            prompt=None,
            preparation=None,
            history=[],
            evaluation=evaluate_logits(logits_BC, held_out.labels_B),
            outputs=Outputs(logits_BC=logits_BC, features_BD=torch.zeros(len(held_out), 1)),
            losses_B=losses_B,
            balanced_scores=False,
            tuning_s=0.0,
        )


def choose(
    backbone: Backbone,
    loss: Loss,
    config: TuneConfig,
    wanted: SearchConfig | None = None,
    *,
    spread: float = 0.0,
    data: TaskData | None = None,
) -> SearchResult:
    made_up = MadeUp(loss, spread)
    return search(backbone, data or make_data(num_val=16), config, wanted, tune_all=made_up)


# 16 images whose differences are -0.4 and 0.4 about the mean: a standard error of 0.1.
@pytest.mark.parametrize(("gain", "kind"), [(0.11, "ship"), (0.09, "probe"), (0.0, "probe"), (-0.5, "probe")])
def test_an_adapter_takes_the_probes_place_by_a_standard_error(
    backbone: Backbone, gain: float, kind: str
) -> None:
    found = choose(backbone, lambda c: 1.0 if c.kind == "probe" else 1.0 - gain, TuneConfig(), spread=0.4)

    assert found.config == (TuneConfig() if kind == "ship" else TuneConfig(kind="probe"))
    assert [trial.settings["kind"] for trial in found.trials] == ["probe", "ship"]
    assert [trial.round for trial in found.trials] == [0, 1]
    assert "standard error of 0.1000" in found.reason
    assert "16 validation images" in found.reason
    assert ("does not take the place" in found.reason) == (kind == "probe")


def test_without_the_fallback_there_is_nothing_to_compare(backbone: Backbone) -> None:
    config = TuneConfig(fallback=False)
    made_up = MadeUp(lambda _: 1.0)

    assert search(backbone, make_data(), config, tune_all=made_up) == SearchResult(config=config)
    assert search(backbone, make_data(), TuneConfig(kind="probe"), tune_all=made_up).config.kind == "probe"
    assert made_up.tuned == []


def test_the_folds_images_are_pooled(backbone: Backbone) -> None:
    found = choose(backbone, lambda c: float(c.kind == "probe"), TuneConfig(), data=make_data(num_train=24))

    assert "24 validation images" in found.reason
    assert found.config.kind == "ship"


def test_the_settings_as_given_stay_unless_another_is_better_by_a_standard_error(backbone: Backbone) -> None:
    wanted = SearchConfig(kind=("ship", "lora"))
    losses = {"probe": 1.0, "ship": 0.5, "lora": 0.45}
    for spread, kind in ((0.0, "lora"), (0.4, "ship")):

        def loss(config: TuneConfig) -> float:
            return losses[config.kind]

        # What is the same noise for both cancels out: the noise is the given settings' alone.
        made_up = _NoisyShip(loss, spread)
        found = search(backbone, make_data(num_val=16), TuneConfig(), wanted, tune_all=made_up)
        assert found.config == TuneConfig(kind=kind)
        assert found.reason.count("place of") == 2


class _NoisyShip(MadeUp):
    def _result(self, task: PackTask) -> TuneResult:
        result = super()._result(task)
        if task.config.kind == "ship":
            return result
        return replace(result, losses_B=torch.full_like(result.losses_B, self._loss(task.config)))


def test_where_the_given_settings_lose_to_the_probe_the_winner_is_held_against_the_probe(
    backbone: Backbone,
) -> None:
    losses = {"probe": 1.0, "ship": 1.2, "lora": 0.7}
    wanted = SearchConfig(kind=("lora",))

    assert choose(backbone, lambda c: losses[c.kind], TuneConfig(), wanted).config.kind == "lora"
    losses["lora"] = 1.1
    assert choose(backbone, lambda c: losses[c.kind], TuneConfig(), wanted).config.kind == "probe"


def test_the_probes_choose_the_head_for_all(backbone: Backbone) -> None:
    def loss(config: TuneConfig) -> float:
        return {"cls": 1.0, "layers": 0.8}[config.head] - (0.3 if config.kind == "lora" else 0.0)

    made_up = MadeUp(loss)
    wanted = SearchConfig(head=("cls", "layers"), kind=("ship", "lora"))
    found = search(backbone, make_data(num_val=16), TuneConfig(), wanted, tune_all=made_up)

    assert (found.config.kind, found.config.head) == ("lora", "layers")
    rounds = [
        [(t.settings["kind"], t.settings["head"]) for t in found.trials if t.round == r] for r in (0, 1, 2)
    ]
    assert rounds[0] == [("probe", "cls"), ("probe", "layers")]
    assert rounds[1] == [("ship", "cls"), ("ship", "layers"), ("lora", "layers")]
    assert rounds[2] == [("ship", "layers"), ("lora", "layers")]
    assert [trial.epochs for trial in found.trials if trial.round == 0] == [0, 0]
    only_heads = search(
        backbone,
        make_data(num_val=16),
        TuneConfig(kind="probe"),
        SearchConfig(head=("cls", "layers")),
        tune_all=MadeUp(loss),
    )
    assert (only_heads.config.kind, only_heads.config.head) == ("probe", "layers")


def test_settings_that_a_kind_does_not_use_make_no_candidate() -> None:
    wanted = SearchConfig(kind=("ship", "lora"), rank=(4, 16), num_independent=(5, 20))

    found = wanted.candidates(TuneConfig())

    assert [(each.kind, each.rank, each.num_independent) for each in found] == [
        ("ship", 8, 10),
        ("ship", 8, 5),
        ("ship", 8, 20),
        ("lora", 4, 10),
        ("lora", 16, 10),
    ]


def test_auto_fills_the_axes_that_have_no_values() -> None:
    wanted = SearchConfig(kind=("ship",), learning_rate=(0.01,)).with_auto({"kind", "head"})

    assert (wanted.kind, wanted.head, wanted.augment) == (("ship",), AUTO["head"], ())


def test_real_probes_and_adapters_are_compared(
    backbone: Backbone, data: TaskData, quick: Callable[..., TuneConfig]
) -> None:
    found = search(backbone, data, quick(), SearchConfig(kind=("lora",), head=("cls", "layers")))

    assert len([trial for trial in found.trials if trial.round == 0]) == 2
    assert all(trial.val_loss > 0.0 for trial in found.trials)
    assert found.reason
    again = search(backbone, data, quick(), SearchConfig(kind=("lora",), head=("cls", "layers")))
    assert again == found, "a seed repeats"


def test_where_nothing_can_be_compared_the_probe_is_published(backbone: Backbone) -> None:
    data = make_data(num_train=3)

    assert search(backbone, data, TuneConfig()).config.kind == "probe"
    assert search(backbone, data, TuneConfig(fallback=False)).config.kind == "ship"
