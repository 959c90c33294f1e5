"""Estimates of a tuning: time from past runs, storage from the shapes of the prompt's tensors.

Without a past run on the same backbone, the time is unknown.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ship.data import DataSummary
from ship.settings.config import TARGETS, TuneConfig, count_epochs
from ship.settings.search_config import SearchConfig, num_full_tunings

if TYPE_CHECKING:
    from ship.backbone_info import BackboneInfo

__all__ = ["Speed", "TuningRun", "count_passes", "learn_speed", "prompt_bytes"]

_BYTES_A_NUMBER = 4
# The nine published matrices give 6 to 12 levels on 12 layers; the true number is known after tuning.
_LEVELS_A_LAYER = 2 / 3
# Features of a head over layers: class tokens of four, mean patch tokens of three.
_HEAD_WIDTHS = 7


@dataclass(frozen=True, kw_only=True)
class TuningRun:
    """Duration of one finished tuning.

    Attributes:
        task_key: 64 hex digits.
        num_passes: Training images, each of their tiles, times epochs, comparisons included.
        tuning_s: Seconds of one device.
        time_s: Time of its publication, seconds since the epoch.
    """

    task_key: str
    num_passes: int
    tuning_s: float
    time_s: float

    @classmethod
    def from_metrics(cls, task_key: str, metrics: Mapping[str, Any], time_s: float) -> "TuningRun | None":
        """A run from an artifact's metrics; None if they lack a value."""
        try:
            steps = int(metrics["num_train"]) * int(metrics["epochs"]) + int(metrics.get("search_passes", 0))
            num_passes = steps * int(metrics.get("num_tiles", 1))
            tuning_s = float(metrics["tuning_s"]) + float(metrics.get("search_s", 0.0))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if num_passes <= 0 or not 0.0 < tuning_s < math.inf:
            return None
        return cls(task_key=task_key, num_passes=num_passes, tuning_s=tuning_s, time_s=time_s)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Tuning speed of one worker on a backbone.

    Attributes:
        images_per_s: Training images a second, counting all passes.
        num_runs: Tunings that it was learned from.
    """

    images_per_s: float
    num_runs: int


def learn_speed(runs: Iterable[TuningRun]) -> Speed | None:
    """The median speed of past runs, robust to one that stalled; None without any."""
    speeds = [run.num_passes / run.tuning_s for run in runs]
    return Speed(images_per_s=statistics.median(speeds), num_runs=len(speeds)) if speeds else None


def count_passes(config: TuneConfig, search: SearchConfig | None, summary: DataSummary) -> float:
    """Images that tuning will go through, comparisons and validation images that are trained on included."""
    has_val = summary.num_val > 0 and summary.num_test > 0
    num_tunings = num_full_tunings(config, search, summary.num_train, has_val=has_val)
    num_images = num_tunings * summary.num_train
    if has_val and num_tunings and not config.patience:
        num_images += summary.num_val
    return num_images * count_epochs(config, summary.num_train)


def prompt_bytes(config: TuneConfig, backbone: "BackboneInfo", num_classes: int, num_train: int) -> int:
    """Size of a prompt's tensors in float32: tokens, prototypes, low-rank updates, head, gates."""
    num_widths = num_classes * (_HEAD_WIDTHS if config.head == "layers" else 1)
    if config.has_prompts:
        num_levels = max(1, round(backbone.depth * _LEVELS_A_LAYER))
        num_groups = min(config.num_attribute_groups, num_levels - 1) if config.num_attribute else 0
        num_widths += num_levels * config.num_independent + config.num_shared
        num_widths += num_groups * config.num_attribute
        num_widths += min(config.num_prototypes, num_train) if num_groups else 0
    sides = sum(sum(TARGETS[name]) for name in config.low_rank_targets)
    num_widths += backbone.depth * config.rank * sides
    return _BYTES_A_NUMBER * (num_widths * backbone.width + num_classes + backbone.depth)
