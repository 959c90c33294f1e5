"""Settings by how much time a task is worth, fitted to how many images it has.

A preset sets what the user has not: the kind, how long to tune, and which settings to search. ``python -m
tests.benchmarks accuracy --presets`` shows what each costs and gains.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from ship.errors import ConfigError
from ship.settings.config import TuneConfig
from ship.settings.search_config import AXES, SearchConfig

__all__ = ["PRESETS", "Preset", "choose_settings"]

Preset = Literal["quick", "balanced", "best"]
PRESETS: tuple[Preset, ...] = ("quick", "balanced", "best")

# Images a class under which a prompt of many tokens learns its training images by heart.
_FEW_A_CLASS = 20


@dataclass(frozen=True, kw_only=True)
class _Effort:
    """Effort of a preset.

    Attributes:
        num_steps: Optimizer steps, where the data is small.
        min_epochs: Epochs, where the data is large.
        search: Values to try; None for no search.
    """

    num_steps: int
    min_epochs: int
    search: SearchConfig | None


_EFFORTS: dict[Preset, _Effort] = {
    "quick": _Effort(num_steps=60, min_epochs=4, search=None),
    "balanced": _Effort(
        num_steps=200,
        min_epochs=10,
        search=SearchConfig(kind=("ship", "lora"), head=("cls", "layers"), augment=("none", "flips")),
    ),
    "best": _Effort(
        num_steps=400,
        min_epochs=20,
        search=SearchConfig(
            kind=("ship", "lora", "ship+lora"),
            head=("cls", "layers"),
            augment=("none", "flips", "light"),
            rank=(4, 16),
            learning_rate=(0.005, 0.01, 0.02, 0.05),
            num_independent=(5, 10, 20),
            num_candidates=16,
        ),
    ),
}


def choose_settings(
    config: TuneConfig,
    *,
    preset: Preset | None,
    search: SearchConfig | None,
    pinned: Collection[str],
    auto: Collection[str] = (),
    num_train: int,
    num_classes: int,
) -> tuple[TuneConfig, SearchConfig | None]:
    """Settings of a task by preset, data and the user's own settings.

    Args:
        config: The user's settings over the defaults.
        preset: None leaves the settings as they are.
        search: The user's; one without values turns a preset's off.
        pinned: Names of settings that the user has set: a preset neither changes nor searches them.
        auto: Names of settings that the user wants searched; see ``search_config.AUTO``.
        num_train: Training images.
        num_classes: C.

    Returns:
        The settings, and what is to be searched, if anything.

    Raises:
        ConfigError: There is no such preset.
    """
    if preset is not None:
        if preset not in PRESETS:
            raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        effort = _EFFORTS[preset]
        fitted = _fit(config, effort, num_train, num_classes)
        config = replace(config, **{name: value for name, value in fitted.items() if name not in pinned})
        if search is None and effort.search is not None:
            fixed: dict[str, Any] = {axis: () for axis in AXES if axis in pinned}
            search = replace(effort.search, **fixed)
    if auto:
        search = (search or SearchConfig()).with_auto(auto)
    is_search = search is not None and (search.num_tuned(config) > 1 or len(search.heads(config)) > 1)
    return config, search if is_search else None


def _fit(config: TuneConfig, effort: _Effort, num_train: int, num_classes: int) -> dict[str, Any]:
    steps_an_epoch = math.ceil(num_train / config.batch_size)
    epochs = max(effort.min_epochs, math.ceil(effort.num_steps / steps_an_epoch))
    is_few = num_train < _FEW_A_CLASS * num_classes
    fitted: dict[str, Any] = {"epochs": epochs, "num_independent": 5 if is_few else 10}
    if config.start == "gated":
        # As accurate as both together, and faster to tune and to serve (docs/figures.md).
        fitted["kind"] = "lora"
    return fitted
