"""Methods of the accuracy benchmark, all with as many candidates, steps and pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from ship.backbone import Backbone
from ship.baselines.config import BaselineConfig
from ship.baselines.fitting import fit_baseline
from ship.data import TaskData
from ship.settings.config import TuneConfig
from ship.settings.presets import PRESETS, Preset, choose_settings
from ship.tuning.preparation import extract_features
from ship.tuning.run import PackTask, tune_pack
from ship.tuning.search import search

__all__ = ["ABLATIONS", "ALL", "METHODS", "PRESET_ROWS", "Effort", "Fit", "Precision", "fit_all"]

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Budget of one training run.

    Attributes:
        seed: Seed of initial values and order.
        num_steps: Optimizer steps; a preset has its own.
        batch_size: Training pictures a step.
        precision: Precision of activations and frozen weights.
    """

    seed: int
    num_steps: int
    batch_size: int
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Result of one candidate on the data's held-out split.

    Attributes:
        accuracy: Accuracy on it.
        val_loss: Cross-entropy on the validation split; infinite without one.
        num_trained: Numbers that were trained.
    """

    accuracy: float
    val_loss: float
    num_trained: int


def _grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


_SHIP = _grid(learning_rate=(0.005, 0.02), num_independent=(5, 20))
_PUBLISHED = _grid(learning_rate=(0.001, 0.005), num_independent=(5, 20), start=("published",))
_VPT = _grid(learning_rate=(0.002, 0.01), num_tokens=(5, 20))

# Four candidates each; the linear probe chooses its penalty by cross-validation.
METHODS: dict[str, list[dict[str, Any]]] = {
    "linear": [{"kind": "probe"}],
    "vpt-shallow": _VPT,
    "vpt-deep": _VPT,
    "lora": _grid(learning_rate=(0.0005, 0.003), rank=(4, 16)),
    "full": _grid(learning_rate=(0.00003, 0.0001, 0.0003, 0.001)),
    "ship": _SHIP,
    "ship-published": _PUBLISHED,
    "linear-layers": [{"kind": "probe", "head": "layers"}],
    # Low ranks at LoRA's rates: a learning rate is that of prompt tokens, theirs a fifth of it.
    "ship-low-rank": _grid(kind=("lora",), learning_rate=(0.0025, 0.015), rank=(4, 16)),
    "ship-both": _grid(kind=("ship+lora",), learning_rate=(0.005, 0.02), rank=(4, 16)),
    "ship-auto": _grid(kind=("ship", "lora"), head=("cls", "layers")),
}
ABLATIONS: dict[str, list[dict[str, Any]]] = {
    "ship, a level a layer": [{**settings, "threshold": 1.0} for settings in _SHIP],
    "ship, no shared": [{**settings, "num_shared": 0} for settings in _SHIP],
    "ship, no attribute": [{**settings, "num_attribute": 0} for settings in _SHIP],
    "ship, no matching": [{**settings, "matching_weight": 0.0} for settings in _SHIP],
    "vpt-deep, cold head": [{**settings, "head_start": "zero"} for settings in _VPT],
}


# Presets search by themselves, on folds or a part of the training pictures.
PRESET_ROWS: dict[str, list[dict[str, Any]]] = {
    f"preset {preset}": [{"preset": preset}] for preset in PRESETS
}
ALL = {**METHODS, **ABLATIONS, **PRESET_ROWS}


def fit_all(
    backbone: Backbone,
    data: TaskData,
    method: str,
    candidates: Sequence[dict[str, Any]],
    effort: Effort,
) -> list[Fit]:
    """Train every candidate of a method.

    Args:
        backbone: Backbone of all candidates.
        data: Training split, and the held-out split to evaluate on.
        method: A name of ``ALL``.
        candidates: Settings of each candidate.
        effort: Budget of each candidate.
    """
    if method in PRESET_ROWS:
        return [_fit_preset(backbone, data, each["preset"], effort) for each in candidates]
    kind = method.split(",")[0]
    steps_an_epoch = math.ceil(len(data.train) / effort.batch_size)
    common: dict[str, Any] = {
        "seed": effort.seed,
        "epochs": max(1, round(effort.num_steps / steps_an_epoch)),
        "batch_size": effort.batch_size,
        "precision": effort.precision,
    }
    if kind.startswith(("linear", "ship")):
        return _fit_ship(backbone, data, [TuneConfig(**common, **each) for each in candidates])
    common["method"] = kind
    return _fit_baselines(backbone, data, [BaselineConfig(**common, **each) for each in candidates])


def _fit_preset(backbone: Backbone, data: TaskData, preset: Preset, effort: Effort) -> Fit:
    config, wanted = choose_settings(
        TuneConfig(seed=effort.seed, precision=effort.precision),
        preset=preset,
        search=None,
        pinned=(),
        num_train=len(data.train),
        num_classes=len(data.labels),
    )
    config = search(backbone, data, config, wanted).config
    return _fit_ship(backbone, data, [config])[0]


def _fit_baselines(backbone: Backbone, data: TaskData, configs: Sequence[BaselineConfig]) -> list[Fit]:
    features = extract_features(backbone, data)
    results = [fit_baseline(backbone, data, config, features) for config in configs]
    return [
        Fit(
            accuracy=result.evaluation.accuracy,
            val_loss=math.inf if result.val_loss is None else result.val_loss,
            num_trained=result.num_trained,
        )
        for result in results
    ]


def _fit_ship(backbone: Backbone, data: TaskData, configs: Sequence[TuneConfig]) -> list[Fit]:
    # A tiny network has fewer tokens than the default number of attribute tokens.
    limit = backbone.info.num_tokens
    configs = [replace(config, num_attribute=min(config.num_attribute, limit)) for config in configs]
    outcomes = tune_pack(backbone, [PackTask(data=data, config=config) for config in configs])
    fits = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        val_loss = outcome.history[-1].val_loss
        fits.append(
            Fit(
                accuracy=outcome.evaluation.accuracy,
                val_loss=math.inf if val_loss is None else val_loss,
                num_trained=outcome.prompt.num_trained(),
            )
        )
    return fits
