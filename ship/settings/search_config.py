"""Settings of a search, and its cost: values alone, read without torch.

A process that only hands tasks on, such as the ledger, needs no more.
"""

import itertools
import math
import random
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ship.errors import ConfigError
from ship.settings.checks import Check, check_settings, whole
from ship.settings.config import TuneConfig

__all__ = ["AXES", "MIN_IMAGES_TO_HOLD_OUT", "NUM_FOLDS", "SearchConfig", "num_full_tunings"]

AXES = ("learning_rate", "weight_decay", "num_independent", "threshold")
# Under this many training images a fifth of them says little: each is then validated on once, in turn.
MIN_IMAGES_TO_HOLD_OUT = 200
NUM_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Values that a search tries: every combination, or ``num_candidates`` of them.

    Attributes:
        learning_rate: Values of ``TuneConfig``'s setting of this name; none leaves it as it is.
        weight_decay: Values of that setting; none leaves it as it is.
        num_independent: Values of that setting; none leaves it as it is.
        threshold: Values of that setting; none leaves it as it is.
        num_candidates: At most; drawn by the tuning's seed where there are more combinations.
    """

    learning_rate: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    num_independent: tuple[int, ...] = ()
    threshold: tuple[float | Literal["auto"], ...] = ()
    num_candidates: int = 16

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: Lists all that are out of range.
        """
        checks: dict[str, Check] = dict.fromkeys(AXES, _CHECK_VALUES)
        check_settings(self, {**checks, "num_candidates": whole(1, 256)})
        problems: list[str] = []
        for axis in AXES:
            for value in getattr(self, axis):
                try:
                    TuneConfig(**{axis: value})
                except ConfigError as error:
                    problems += error.problems
        if problems:
            raise ConfigError(problems)

    def candidates(self, config: TuneConfig) -> list[TuneConfig]:
        """``config`` with each combination of values, in a fixed order; at least one."""
        axes = {axis: getattr(self, axis) for axis in AXES if getattr(self, axis)}
        combinations = list(itertools.product(*axes.values()))
        if len(combinations) > self.num_candidates:
            combinations = random.Random(config.seed).sample(combinations, self.num_candidates)
        return [replace(config, **dict(zip(axes, values, strict=True))) for values in combinations]

    @property
    def num_rounds(self) -> int:
        """Halvings until one candidate is left."""
        num_combinations = math.prod(len(getattr(self, axis)) or 1 for axis in AXES)
        return math.ceil(math.log2(min(num_combinations, self.num_candidates)))

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, in a fixed order."""
        return asdict(self)


_CHECK_VALUES: Check = (
    lambda values: isinstance(values, tuple) and len(set(values)) == len(values),
    "a list of different values",
)


def num_full_tunings(search_config: SearchConfig | None, num_train: int, *, has_val: bool) -> float:
    """Cost of a search and the tuning after it, in tunings."""
    if search_config is None:
        return 1.0
    is_folded = not has_val and num_train < MIN_IMAGES_TO_HOLD_OUT
    return 1.0 + search_config.num_rounds * (NUM_FOLDS if is_folded else 1)
