"""Estimates of a tuning: time from past runs, storage from the shapes of the prompt's tensors.

Without a past run on the same backbone, the time is unknown.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ship.data import DataSummary
from ship.settings.config import TuneConfig, count_epochs
from ship.settings.search_config import SearchConfig, num_full_tunings

if TYPE_CHECKING:
    from ship.backbone import BackboneInfo

__all__ = ["Speed", "TuningRun", "count_passes", "learn_speed", "prompt_bytes"]

_BYTES_A_NUMBER = 4
# The nine published matrices give 6 to 12 levels on 12 layers; the true number is known after tuning.
_LEVELS_A_LAYER = 2 / 3


@dataclass(frozen=True, kw_only=True)
class TuningRun:
    """Duration of one finished tuning.

    Attributes:
        task_key: 64 hex digits.
        num_passes: Training images, each of their tiles, times epochs.
        tuning_s: Seconds of one device, without a search.
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
            num_passes = int(metrics["num_train"]) * int(metrics["epochs"]) * int(metrics.get("num_tiles", 1))
            tuning_s = float(metrics["tuning_s"])
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
    """Training images that tuning will go through, the search included."""
    has_val = summary.num_val > 0 and summary.num_test > 0
    num_tunings = num_full_tunings(search, summary.num_train, has_val=has_val)
    return summary.num_train * count_epochs(config, summary.num_train) * num_tunings


def prompt_bytes(config: TuneConfig, backbone: "BackboneInfo", num_classes: int, num_train: int) -> int:
    """Size of a prompt's tensors in float32: independent, shared, attribute, prototypes, head, gates."""
    num_levels = max(1, round(backbone.depth * _LEVELS_A_LAYER))
    num_groups = min(config.num_attribute_groups, num_levels - 1)
    num_tokens = (
        num_levels * config.num_independent
        + config.num_shared
        + num_groups * config.num_attribute
        + min(config.num_prototypes, num_train)
        + num_classes
    )
    return _BYTES_A_NUMBER * (num_tokens * backbone.width + num_classes + backbone.depth)
