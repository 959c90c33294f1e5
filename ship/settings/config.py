"""The settings of one task's tuning, checked as a whole.

Names and defaults follow the paper (arXiv:2412.16956, section 3 and its experiments), except those of the
gated start, ``min_steps`` and the cap on warm-up, which are ours.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol, Self

from ship.errors import ConfigError
from ship.settings.checks import Check, check_settings, number, one_of, whole

__all__ = ["METHOD_VERSION", "Schedule", "TuneConfig", "count_epochs"]


# Part of every task key: raise it when the same settings would yield other weights.
METHOD_VERSION = "ship-1"
# Settings that are no more; with the one value that is left they stay in task keys, snapshots and cards.
_FORMER_SETTINGS = {"attention": "decoupled"}

_affinity = number("from -1 to 1", lambda v: -1.0 <= v <= 1.0)

_CHECKS: dict[str, Check] = {
    "num_independent": whole(0, 1000),
    "num_shared": whole(0, 1000),
    "num_attribute": whole(0, 1000),
    "num_attribute_groups": whole(0, 100),
    "num_prototypes": whole(1, 10_000),
    "top_k": whole(1),
    "threshold": (
        lambda v: v == "auto" or _affinity[0](v),
        f"`auto` or {_affinity[1]} (published: 0.93 to 0.98)",
    ),
    "start": one_of("gated", "published"),
    "attention_scale": number("from 0 to below 1", lambda v: 0.0 <= v < 1.0),
    "attribute_mix": number("from 0 to 1", lambda v: 0.0 <= v <= 1.0),
    "matching_weight": number("from 0", lambda v: v >= 0.0),
    "learning_rate": number("above 0, at most 10", lambda v: 0.0 < v <= 10.0),
    "gate_rate_scale": number("from 0 to 1000", lambda v: 0.0 <= v <= 1000.0),
    "gate_penalty": number("from 0", lambda v: v >= 0.0),
    "head_penalty": number("from 0", lambda v: v >= 0.0),
    "weight_decay": number("from 0 to 1", lambda v: 0.0 <= v <= 1.0),
    "epochs": whole(1, 100_000),
    "warmup_epochs": whole(0),
    "min_steps": whole(0, 1_000_000),
    "patience": whole(0),
    "batch_size": whole(1, 65_536),
    "max_hierarchy_images": whole(1),
    "precision": one_of("auto", "float32", "bfloat16"),
    "seed": whole(0, 2**31 - 1),
}


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Settings of one task's prompt and its tuning.

    Attributes:
        num_independent: K, independent prompt tokens (SIP) a level.
        num_shared: S, shared prompt tokens (SSP), fresh at every layer.
        num_attribute: A, attribute prompt tokens (AP) a group.
        num_attribute_groups: G, how many of the last levels get an attribute group.
        num_prototypes: R, at most; fewer where there are fewer distinct training images.
        top_k: Image tokens that the matching loss compares a prompt token with.
        threshold: Affinity under which a new level starts, or ``auto`` (see ``hierarchy.auto_threshold``).
        start: ``published`` mixes prompts in with a constant ``attention_scale`` from the first step on;
            ``gated`` learns one gate a layer, from zero, and starts the head from the linear probe.
        attention_scale: Weight of the prompts' softmax (``published`` only).
        attribute_mix: Weight of the prototype mixture in an attribute token.
        matching_weight: Weight of the prompt matching loss.
        learning_rate: AdamW's, at the top of the schedule. The default was measured with the gated start; the
            paper has 1e-3.
        gate_rate_scale: The gates' learning rate as a multiple of ``learning_rate`` (``gated`` only).
        gate_penalty: Weight of the gates' sum of squares in the loss (``gated`` only): where the training
            images are answered already, gates stay shut.
        head_penalty: Weight of the squared distance of the head from the linear probe (``gated`` only).
        weight_decay: AdamW's.
        epochs: Passes over the training images.
        warmup_epochs: Epochs of linear warm-up before the cosine (at most a tenth of all epochs are used).
        min_steps: Floor on optimizer steps: small data gets more epochs until this many steps are reached.
        patience: Epochs without a lower validation loss after which tuning ends early; 0 for never. The
            prompt is still that of the last epoch.
        batch_size: Training images a step.
        max_hierarchy_images: Training images used to find levels.
        precision: Dtype of activations and frozen weights while tuning: ``float32``, ``bfloat16``, or
            ``auto`` for bfloat16 where the device multiplies in it. What is tuned, and every evaluation, is
            in float32.
        seed: Seeds initial values, k-means and the order of images.
    """

    num_independent: int = 10
    num_shared: int = 10
    num_attribute: int = 10
    num_attribute_groups: int = 2
    num_prototypes: int = 200
    top_k: int = 10
    threshold: float | Literal["auto"] = "auto"
    start: Literal["gated", "published"] = "gated"
    attention_scale: float = 0.1
    attribute_mix: float = 0.1
    matching_weight: float = 0.5
    learning_rate: float = 0.02
    gate_rate_scale: float = 10.0
    gate_penalty: float = 0.01
    head_penalty: float = 0.1
    weight_decay: float = 1e-2
    epochs: int = 100
    warmup_epochs: int = 10
    min_steps: int = 0
    patience: int = 0
    batch_size: int = 64
    max_hierarchy_images: int = 1000
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: Lists all settings that are out of range.
        """
        check_settings(self, _CHECKS)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values. Task keys are made of them: a new setting changes every key."""
        return {**asdict(self), **_FORMER_SETTINGS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read settings back; unknown names are refused.

        Raises:
            ConfigError: A name is unknown or a value is out of range.
        """
        if values.get("attention", "decoupled") != "decoupled":
            raise ConfigError(
                f"attention: expected `decoupled`, got {values['attention']!r}: it cannot be served; "
                "tune the task again without this setting"
            )
        values = {name: value for name, value in values.items() if name not in _FORMER_SETTINGS}
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                [f"{name}: unknown setting; known are {', '.join(sorted(known))}" for name in unknown]
            )
        return cls(**values)


class Schedule(Protocol):
    """The settings of a schedule: SHIP's and every baseline's."""

    @property
    def learning_rate(self) -> float:
        """The optimizer's, at the top."""

    @property
    def epochs(self) -> int:
        """Passes over the training images."""

    @property
    def warmup_epochs(self) -> int:
        """Epochs of linear warm-up, at most."""

    @property
    def min_steps(self) -> int:
        """Floor on optimizer steps."""

    @property
    def batch_size(self) -> int:
        """Training images a step."""


def count_epochs(config: Schedule, num_images: int) -> int:
    """``epochs``, or as many as ``min_steps`` asks for where that is more."""
    steps_per_epoch = math.ceil(num_images / config.batch_size)
    return max(config.epochs, math.ceil(config.min_steps / steps_per_epoch))
