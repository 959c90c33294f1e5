"""The settings of a baseline's training, checked as a whole."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ship.errors import ConfigError

__all__ = ["METHODS", "BaselineConfig"]

Method = Literal["vpt-shallow", "vpt-deep", "lora", "full"]
METHODS: tuple[Method, ...] = ("vpt-shallow", "vpt-deep", "lora", "full")


def _from(low: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: type(v) is int and v >= low, f"a whole number from {low}"


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "method": (lambda v: v in METHODS, " or ".join(f"`{method}`" for method in METHODS)),
    "num_tokens": _from(1),
    "rank": _from(1),
    "head_start": (lambda v: v in ("linear_probe", "zero"), "`linear_probe` or `zero`"),
    "learning_rate": (lambda v: type(v) in (int, float) and 0.0 < v <= 10.0, "a number above 0, at most 10"),
    "weight_decay": (lambda v: type(v) in (int, float) and 0.0 <= v <= 1.0, "a number from 0 to 1"),
    "epochs": _from(1),
    "warmup_epochs": _from(0),
    "min_steps": _from(0),
    "batch_size": _from(1),
    "precision": (lambda v: v in ("auto", "float32", "bfloat16"), "`auto`, `float32` or `bfloat16`"),
    "seed": (lambda v: type(v) is int and 0 <= v < 2**31, "a whole number from 0 to 2147483647"),
}


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """How a baseline is trained. What it shares with ``TuneConfig`` means the same there.

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
        precision: Of activations and frozen weights while training.
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
        problems = [
            f"{name}: expected {expected}, got {getattr(self, name)!r}"
            for name, (is_valid, expected) in _CHECKS.items()
            if not is_valid(getattr(self, name))
        ]
        if problems:
            raise ConfigError(problems)
