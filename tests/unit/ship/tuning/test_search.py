from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from ship.backbone import Backbone
from ship.data import TaskData
from ship.data.pixel_copies import pixel_digests
from ship.errors import ConfigError, TuningError
from ship.settings.config import TuneConfig
from ship.settings.presets import PRESETS, choose_settings
from ship.settings.search_config import SearchConfig, num_full_tunings
from ship.settings.view import View
from ship.tuning.folds import make_folds
from ship.tuning.member import PackTask, TuneResult
from ship.tuning.run import tune_pack
from ship.tuning.search import SearchStep, search
from tests.unit.ship.factory import make_data


def with_test_labels_turned(data: TaskData) -> TaskData:
    """The same data, but for the truth about its test images."""
    assert data.test is not None
    labels_B = (data.test.labels_B + 1) % len(data.labels)
    return replace(data, test=replace(data.test, labels_B=labels_B))


def test_all_values_are_combined() -> None:
    config = TuneConfig(epochs=7)
    candidates = SearchConfig(learning_rate=(0.01, 0.02), threshold=("auto", 0.95)).candidates(config)

    assert [(each.learning_rate, each.threshold) for each in candidates] == [
        (0.02, "auto"),
        (0.01, "auto"),
        (0.01, 0.95),
        (0.02, 0.95),
    ], "the settings as they are come first"
    assert {each.epochs for each in candidates} == {7}
    assert SearchConfig().candidates(config) == [config]


def test_too_many_combinations_are_drawn_from_by_the_seed() -> None:
    wide = SearchConfig(learning_rate=(0.01, 0.02, 0.05), num_independent=(1, 2, 3, 4), num_candidates=5)

    drawn = [wide.candidates(TuneConfig(seed=seed)) for seed in (0, 0, 1)]

    assert drawn[0] == drawn[1] != drawn[2]
    assert len({(each.learning_rate, each.num_independent) for each in drawn[0]}) == 5
    assert all(list_[0] == TuneConfig(seed=list_[0].seed) for list_ in drawn)


def test_wrong_values_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        SearchConfig(learning_rate=(0.0, 0.1), num_independent=(5, -1))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "learning_rate",
        "num_independent",
    ]
    with pytest.raises(ConfigError, match="weight_decay: expected a list of different values"):
        SearchConfig(weight_decay=(0.1, 0.1))


def test_the_tasks_own_validation_images_are_used() -> None:
    data = make_data(num_val=6)
    [fold] = make_folds(data, seed=0)

    assert (fold.train, fold.val, fold.test) == (data.train, None, data.val)


def test_copies_of_a_picture_are_on_one_side_of_a_fold() -> None:
    data = make_data(num_train=24)
    copies = replace(
        data.train,
        images_B3HW=data.train.images_B3HW.repeat_interleave(2, 0),
        labels_B=data.train.labels_B.repeat_interleave(2),
        paths=tuple(f"{number}/{path}" for path in data.train.paths for number in range(2)),
    )
    folds = make_folds(replace(data, train=copies, val=None), seed=0)
    assert len(folds) == 3
    for fold in folds:
        assert set(pixel_digests(fold.train)).isdisjoint(pixel_digests(fold.held_out))
        assert len(fold.held_out) == 16


@pytest.mark.parametrize(("num_train", "num_folds", "num_val"), [(24, 3, 8), (300, 1, 60)])
def test_else_training_images_are_held_out(num_train: int, num_folds: int, num_val: int) -> None:
    data = make_data(num_train=num_train)
    # With validation images alone, they are what the result is measured on: not to be looked at.
    measured_on = replace(data, val=data.test, test=None)
    folds = make_folds(measured_on, seed=0)

    assert len(folds) == num_folds
    assert len({fold.fingerprint for fold in folds} | {data.fingerprint}) == num_folds + 1
    validated: list[str] = []
    for fold in folds:
        assert fold.val is None
        held_out = fold.held_out
        assert len(held_out) == num_val
        assert set(fold.train.paths) | set(held_out.paths) == set(data.train.paths)
        assert not set(fold.train.paths) & set(held_out.paths)
        assert set(held_out.labels_B.tolist()) == {0, 1, 2}
        row = data.train.paths.index(held_out.paths[3])
        assert torch.equal(held_out.images_B3HW[3], data.train.images_B3HW[row])
        assert held_out.labels_B[3] == data.train.labels_B[row]
        validated += held_out.paths
    assert len(set(validated)) == len(validated)


def test_the_only_image_of_a_class_is_always_trained_on(
    backbone: Backbone, quick: Callable[..., TuneConfig]
) -> None:
    data = make_data(num_train=3)
    assert make_folds(data, seed=0) == []
    assert search(backbone, data, quick(), SearchConfig(learning_rate=(0.01, 0.02))).trials == ()

    folds = make_folds(make_data(num_train=4), seed=0)
    assert folds
    for fold in folds:
        assert {1, 2} <= set(fold.train.labels_B.tolist())


def test_the_better_half_goes_on_with_twice_the_epochs(
    backbone: Backbone, quick: Callable[..., TuneConfig]
) -> None:
    grid = SearchConfig(learning_rate=(1e-5, 0.003, 0.01, 0.03))
    config = quick(epochs=32, batch_size=8, start="published", learning_rate=1e-5, fallback=False)
    found = search(backbone, make_data(num_val=12), config, grid)

    first, second = ([trial for trial in found.trials if trial.round == number] for number in (1, 2))
    assert [trial.settings["learning_rate"] for trial in first] == list(grid.learning_rate)
    assert [trial.epochs for trial in first] == [8] * 4
    assert [trial.epochs for trial in second] == [16] * 2
    kept = sorted(first, key=lambda trial: trial.val_loss)[:2]
    assert {trial.settings["learning_rate"] for trial in second} == {
        trial.settings["learning_rate"] for trial in kept
    }
    best = min(second, key=lambda trial: trial.val_loss)
    assert found.config == replace(config, learning_rate=best.settings["learning_rate"])
    assert found.config.learning_rate > 1e-5, "a rate at which nothing is learned"


def test_the_truth_about_test_images_plays_no_part(
    backbone: Backbone, quick: Callable[..., TuneConfig]
) -> None:
    data, grid = make_data(), SearchConfig(learning_rate=(0.003, 0.03))

    found, turned = (search(backbone, each, quick(), grid) for each in (data, with_test_labels_turned(data)))

    assert found == turned


def test_a_candidate_that_fails_loses(backbone: Backbone, quick: Callable[..., TuneConfig]) -> None:
    # More attribute groups than levels cannot be; more prompt tokens than a backbone lends neither.
    grid = SearchConfig(threshold=(0.9, -1.0))
    config = quick(matching_weight=0.5, num_attribute_groups=1, threshold=0.9, fallback=False)
    found = search(backbone, make_data(num_val=6), config, grid)

    assert len(found.trials) == 2
    assert found.config.threshold in grid.threshold


def test_where_all_fail_the_reason_is_told(backbone: Backbone, quick: Callable[..., TuneConfig]) -> None:
    config = quick(matching_weight=1e38, learning_rate=10.0)
    with pytest.raises((TuningError, ConfigError)):
        search(backbone, make_data(num_val=6), config, SearchConfig(num_independent=(1, 2)))


def test_a_caller_that_gives_up_is_heard_at_once(
    backbone: Backbone, quick: Callable[..., TuneConfig]
) -> None:
    calls = []

    def give_up(_: SearchStep) -> None:
        calls.append(1)
        raise InterruptedError("lease lost")

    with pytest.raises(InterruptedError, match="lease lost"):
        search(backbone, make_data(), quick(), SearchConfig(num_independent=(1, 2)), on_epoch=give_up)
    assert len(calls) == 1


def test_a_search_tells_its_rounds_and_how_far_it_has_got(
    backbone: Backbone, quick: Callable[..., TuneConfig]
) -> None:
    grid = SearchConfig(learning_rate=(0.003, 0.01, 0.02, 0.03))
    config = quick(epochs=32, batch_size=8, learning_rate=0.003)
    steps: list[SearchStep] = []
    # On three folds: a probe; then four candidates for 10 epochs (20 steps) and two for 16.
    search(backbone, make_data(), config, grid, on_epoch=steps.append)

    starts = [step for step in steps if step.is_new_round]
    assert [(step.round, step.num_rounds, step.num_candidates) for step in starts] == [
        (0, 2, 1),
        (1, 2, 4),
        (2, 2, 2),
    ]
    assert {step.num_epochs for step in steps} == {3 * (4 * 10 + 2 * 16)}
    assert [step.epoch for step in starts] == [0, 0, 3 * 4 * 10]
    done = [step.epoch for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].num_epochs


def test_a_failed_candidate_does_not_hold_the_progress_back(
    backbone: Backbone, quick: Callable[..., TuneConfig]
) -> None:
    def tune_all(tasks: Sequence[PackTask]) -> list[TuneResult | Exception]:
        fit = [task for task in tasks if task.config.learning_rate != 0.02]
        found = iter(tune_pack(backbone, fit))
        return [next(found) if task in fit else TuningError("loss is not finite") for task in tasks]

    grid = SearchConfig(learning_rate=(0.003, 0.01, 0.02))
    config = quick(epochs=8, learning_rate=0.003, fallback=False)
    steps: list[SearchStep] = []
    found = search(backbone, make_data(num_val=6), config, grid, on_epoch=steps.append, tune_all=tune_all)

    _, second = (step for step in steps if step.is_new_round)
    assert second.epoch == sum(trial.epochs for trial in found.trials if trial.round == 1)
    assert steps[-1].epoch == steps[-1].num_epochs


def test_what_a_search_costs() -> None:
    four = SearchConfig(learning_rate=(0.01, 0.02), num_independent=(5, 10))
    config, alone = TuneConfig(), TuneConfig(fallback=False)

    assert num_full_tunings(alone, None, 50, has_val=False) == 1.0
    assert num_full_tunings(config, None, 50, has_val=True) == 1.5
    assert num_full_tunings(config, None, 50, has_val=False) == 2.5, "the fallback, on three folds"
    assert num_full_tunings(TuneConfig(kind="probe"), None, 50, has_val=False) == 0.0
    heads = SearchConfig(head=("cls", "layers"))
    assert num_full_tunings(TuneConfig(kind="probe"), heads, 50, has_val=True) == 0.0
    assert num_full_tunings(config, heads, 50, has_val=True) == 2.0, "the settings as given, and on layers"
    assert num_full_tunings(config, SearchConfig(rank=(4,)), 50, has_val=True) == 1.5, "not used by `ship`"
    five = SearchConfig(kind=("lora",), rank=(2, 4, 8, 16))
    assert num_full_tunings(config, five, 50, has_val=True) == 1.0 + 5 / 8 + 3 / 4 + 2 / 2
    for each in (config, alone):
        assert num_full_tunings(each, four, 50, has_val=True) == 3.0
        assert num_full_tunings(each, four, 1000, has_val=False) == 3.0
        assert num_full_tunings(each, four, 50, has_val=False) == 7.0


@pytest.mark.parametrize("num_a_class", [5, 20, 100, 1000])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_spends_steps_by_the_size_of_the_data(preset: str, num_a_class: int) -> None:
    chosen, found = choose_settings(
        TuneConfig(), preset=preset, search=None, pinned=(), num_train=4 * num_a_class, num_classes=4
    )

    num_steps = chosen.epochs * -(-4 * num_a_class // chosen.batch_size)
    fewest = {"quick": 60, "balanced": 200, "best": 400}[preset]
    assert fewest <= num_steps <= max(1.2 * fewest, 20 * 63)
    assert chosen.num_independent == (5 if num_a_class < 20 else 10)
    assert chosen.kind == "lora"
    assert (found is None) == (preset == "quick")


def test_what_the_user_says_stays() -> None:
    config = TuneConfig(epochs=3, learning_rate=0.001)
    own = SearchConfig(weight_decay=(0.0, 0.1))
    sizes = {"num_train": 40, "num_classes": 2}

    chosen, found = choose_settings(
        config, preset="best", search=None, pinned={"epochs", "learning_rate"}, **sizes
    )
    assert (chosen.epochs, chosen.learning_rate) == (3, 0.001)
    assert found is not None
    assert found.learning_rate == ()
    assert choose_settings(config, preset="best", search=own, pinned=(), **sizes)[1] == own
    assert choose_settings(config, preset="best", search=SearchConfig(), pinned=(), **sizes)[1] is None
    assert choose_settings(config, preset=None, search=own, pinned=(), **sizes) == (config, own)


@pytest.mark.parametrize("settings", [{"kind": "probe"}, {"kind": "ship"}, {"start": "published"}], ids=str)
def test_a_preset_leaves_the_users_kind_and_the_published_start(settings: dict[str, Any]) -> None:
    config = TuneConfig(**settings)

    chosen, _ = choose_settings(
        config, preset="quick", search=None, pinned=set(settings), num_train=40, num_classes=2
    )

    assert chosen.kind == config.kind


def test_folds_keep_the_view() -> None:
    data = make_data()
    tiles = [split.images_B3HW.unsqueeze(1).repeat(1, 2, 1, 1, 1) for split in (data.train, data.held_out)]
    tiled = replace(
        data,
        train=replace(data.train, images_B3HW=tiles[0]),
        test=replace(data.held_out, images_B3HW=tiles[1]),
        view=View(tiles="1x2"),
    )
    folds = make_folds(tiled, seed=0)
    assert len(folds) == 3
    assert all(fold.view == tiled.view and fold.num_tiles == 2 for fold in folds)
