"""The settings of one task's tuning, checked as a whole.

Names and defaults follow the paper (arXiv:2412.16956, section 3 and its experiments), except those of the
gated start, low ranks, the head over several layers, ``min_steps`` and the cap on warm-up, which are ours.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import Any, Literal, Protocol, Self

from ship.errors import ConfigError
from ship.settings.checks import Check, check_settings, number, one_of, whole

__all__ = ["KINDS", "METHOD_VERSION", "TARGETS", "Head", "Kind", "Schedule", "TuneConfig", "count_epochs"]


# Part of every task key: raise it when the same settings would yield other weights.
METHOD_VERSION = "ship-2"
# Settings of method ship-1 that are no more.
_FORMER_SETTINGS = ("attention", "gate_rate_scale")
# What ship-1 did where there are settings now.
_FORMERLY = {"kind": "ship", "head": "cls", "augment": "none", "balance": "none", "fallback": False}
# At the top of the schedule, unless the user sets another; the first was measured, the second is the paper's.
_GATED_RATE, _PUBLISHED_RATE = 0.02, 1e-3

Kind = Literal["probe", "ship", "lora", "ship+lora"]
Head = Literal["cls", "layers"]
KINDS: tuple[Kind, ...] = ("probe", "ship", "lora", "ship+lora")
# Linear layers of a block, with their inputs and outputs in widths, where the MLP is four times as wide.
TARGETS = {"qkv": (1, 3), "proj": (1, 1), "fc1": (1, 4), "fc2": (4, 1)}

_affinity = number("from -1 to 1", lambda v: -1.0 <= v <= 1.0)

_CHECKS: dict[str, Check] = {
    "kind": one_of(*KINDS),
    "head": one_of("cls", "layers"),
    "rank": whole(1, 256),
    "low_rank_on": (
        lambda v: isinstance(v, str) and v in _target_lists(),
        f"names out of {', '.join(TARGETS)}, in this order, joined by `+`",
    ),
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
    "low_rank_rate_scale": number("from 0 to 1000", lambda v: 0.0 <= v <= 1000.0),
    "gate_rate": number("from 0 to 1", lambda v: 0.0 <= v <= 1.0),
    "gate_penalty": number("from 0", lambda v: v >= 0.0),
    "head_penalty": number("from 0", lambda v: v >= 0.0),
    "weight_decay": number("from 0 to 1", lambda v: 0.0 <= v <= 1.0),
    "epochs": whole(1, 100_000),
    "warmup_epochs": whole(0),
    "min_steps": whole(0, 1_000_000),
    "patience": whole(0),
    "batch_size": whole(1, 65_536),
    "augment": one_of("none", "flips", "rotations", "light"),
    "balance": one_of("auto", "none", "weights", "prior"),
    "fallback": (lambda v: type(v) is bool, "true or false"),
    "max_hierarchy_images": whole(1),
    "precision": one_of("auto", "float32", "bfloat16"),
    "seed": whole(0, 2**31 - 1),
}


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Settings of one task's prompt and its tuning.

    Attributes:
        kind: The parts that are tuned: ``probe`` has the head alone, ``ship`` prompts, ``lora`` low-rank
            updates, ``ship+lora`` both.
        head: What the head reads: ``cls`` the last class token; ``layers`` also the class token and the mean
            patch token of three earlier layers.
        rank: r, of each low-rank update (``lora``).
        low_rank_on: The linear layers of every block that are updated, such as ``qkv+proj`` (``lora``).
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
        learning_rate: AdamW's for prompt tokens, at the top of the schedule; None for 0.02 with the gated
            start, and the paper's 1e-3 with the published one.
        low_rank_rate_scale: The low-rank updates' learning rate as a multiple of ``learning_rate``.
        gate_rate: The gates' learning rate, at most ten times ``learning_rate`` (``gated`` only).
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
        augment: Random changes of each training image that keep its class: ``flips`` both ways;
            ``rotations`` also by quarter turns; ``light`` also brightness, contrast and small shifts.
        balance: Remedy for unequal class counts: ``weights`` weighs images by their class's rarity, ``prior``
            adds the log of each class's share to the logits while tuning, ``auto`` is ``prior`` where the
            largest class has over three times the images of the smallest, else ``none``.
        fallback: Whether the linear probe is published instead, unless the adapter's calibrated loss on
            validation images is lower by a standard error.
        max_hierarchy_images: Training images used to find levels.
        precision: Dtype of activations and frozen weights while tuning: ``float32``, ``bfloat16``, or
            ``auto`` for bfloat16 where the device multiplies in it. What is tuned, and every evaluation, is
            in float32.
        seed: Seeds initial values, k-means and the order of images.
    """

    kind: Kind = "ship"
    head: Head = "cls"
    rank: int = 8
    low_rank_on: str = "qkv"
    num_independent: int = 10
    num_shared: int = 10
    num_attribute: int = 0
    num_attribute_groups: int = 2
    num_prototypes: int = 200
    top_k: int = 10
    threshold: float | Literal["auto"] = "auto"
    start: Literal["gated", "published"] = "gated"
    attention_scale: float = 0.1
    attribute_mix: float = 0.1
    matching_weight: float = 0.5
    learning_rate: float = None  # type: ignore[assignment] # by the start
    low_rank_rate_scale: float = 0.2
    gate_rate: float = 0.02
    gate_penalty: float = 0.01
    head_penalty: float = 0.1
    weight_decay: float = 1e-2
    epochs: int = 100
    warmup_epochs: int = 10
    min_steps: int = 0
    patience: int = 0
    batch_size: int = 64
    augment: Literal["none", "flips", "rotations", "light"] = "none"
    balance: Literal["auto", "none", "weights", "prior"] = "auto"
    fallback: bool = True
    max_hierarchy_images: int = 1000
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: Lists all settings that are out of range.
        """
        if self.learning_rate is None:
            rate = (  # type: ignore[unreachable]
                _PUBLISHED_RATE if self.start == "published" else _GATED_RATE
            )
            object.__setattr__(self, "learning_rate", rate)
        check_settings(self, _CHECKS)

    @property
    def has_prompts(self) -> bool:
        """Whether there are prompt tokens."""
        return self.kind in ("ship", "ship+lora")

    @property
    def has_low_rank(self) -> bool:
        """Whether there are low-rank updates."""
        return self.kind in ("lora", "ship+lora")

    @property
    def low_rank_targets(self) -> tuple[str, ...]:
        """The linear layers of every block that have a low-rank update."""
        return tuple(self.low_rank_on.split("+")) if self.has_low_rank else ()

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values. Task keys are made of them: a new setting changes every key."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read settings back, also those of method ship-1; unknown names are refused.

        Raises:
            ConfigError: A name is unknown or a value is out of range.
        """
        if values.get("attention", "decoupled") != "decoupled":
            raise ConfigError(
                f"attention: expected `decoupled`, got {values['attention']!r}: it cannot be served; "
                "tune the task again without this setting"
            )
        is_former = any(name in values for name in _FORMER_SETTINGS)
        values = {name: value for name, value in values.items() if name not in _FORMER_SETTINGS}
        if is_former:
            values = {**_FORMERLY, **values}
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                [f"{name}: unknown setting; known are {', '.join(sorted(known))}" for name in unknown]
            )
        return cls(**values)


def _target_lists() -> list[str]:
    return ["+".join(chosen) for size in range(1, len(TARGETS) + 1) for chosen in combinations(TARGETS, size)]


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
