"""The settings of a baseline's training, checked as a whole."""

from dataclasses import dataclass
from typing import Literal

from ship.settings.checks import Check, check_settings, number, one_of, whole

__all__ = ["METHODS", "BaselineConfig"]

Method = Literal["vpt-shallow", "vpt-deep", "lora", "full"]
METHODS: tuple[Method, ...] = ("vpt-shallow", "vpt-deep", "lora", "full")


_CHECKS: dict[str, Check] = {
    "method": one_of(*METHODS),
    "num_tokens": whole(1),
    "rank": whole(1),
    "head_start": one_of("linear_probe", "zero"),
    "learning_rate": number("above 0, at most 10", lambda v: 0.0 < v <= 10.0),
    "weight_decay": number("from 0 to 1", lambda v: 0.0 <= v <= 1.0),
    "epochs": whole(1),
    "warmup_epochs": whole(0),
    "min_steps": whole(0),
    "batch_size": whole(1),
    "precision": one_of("auto", "float32", "bfloat16"),
    "seed": whole(0, 2**31 - 1),
}


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Settings of a baseline's training. Those of ``TuneConfig`` mean the same here.

    Attributes:
        method: ``vpt-shallow``, ``vpt-deep``, ``lora`` or ``full``.
        num_tokens: P, prompt tokens a layer (VPT).
        rank: r, of LoRA's update of queries, keys and values.
        head_start: ``linear_probe`` starts the head from logistic regression on the frozen class token, as
            SHIP's gated start does; ``zero`` is what fine-tuning usually does.
        learning_rate: AdamW's, at the top of the schedule.
        weight_decay: AdamW's.
        epochs: Passes over the training images.
        warmup_epochs: Epochs of linear warm-up before the cosine (at most a tenth of all epochs are used).
        min_steps: Floor on optimizer steps.
        batch_size: Training images a step.
        precision: Dtype of activations and frozen weights while training.
        seed: Seeds initial values and the order of images.
    """

    method: Method
    num_tokens: int = 10
    rank: int = 8
    head_start: Literal["linear_probe", "zero"] = "linear_probe"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    epochs: int = 100
    warmup_epochs: int = 10
    min_steps: int = 0
    batch_size: int = 64
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: Lists all settings that are out of range.
        """
        check_settings(self, _CHECKS)
