"""Settings of a search, and its cost: values alone, read without torch.

A process that only hands tasks on, such as the ledger, needs no more.
"""

import itertools
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ship.errors import ConfigError
from ship.settings.checks import Check, check_settings, whole
from ship.settings.config import Head, Kind, TuneConfig

__all__ = ["AUTO", "AXES", "MIN_IMAGES_TO_HOLD_OUT", "NUM_FOLDS", "SearchConfig", "num_full_tunings"]

AXES = (
    "kind",
    "head",
    "augment",
    "rank",
    "learning_rate",
    "weight_decay",
    "num_independent",
    "threshold",
)
# Values that `auto` stands for where a setting of this name may be `auto`.
AUTO: dict[str, tuple[str, ...]] = {
    "kind": ("ship", "lora", "ship+lora"),
    "head": ("cls", "layers"),
    "augment": ("none", "flips", "light"),
}
# Under this many training images a fifth of them says little: each is then validated on once, in turn.
MIN_IMAGES_TO_HOLD_OUT = 200
NUM_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Values that a search tries: every combination, or ``num_candidates`` of them.

    Attributes:
        kind: Values of ``TuneConfig``'s setting of this name; none leaves it as it is.
        head: Values of that setting, which the linear probes on each decide among; none leaves it as it is.
        augment: Values of that setting; none leaves it as it is.
        rank: Values of that setting; none leaves it as it is.
        learning_rate: Values of that setting; none leaves it as it is.
        weight_decay: Values of that setting; none leaves it as it is.
        num_independent: Values of that setting; none leaves it as it is.
        threshold: Values of that setting; none leaves it as it is.
        num_candidates: At most, the settings as they are among them; drawn by the tuning's seed where there
            are more combinations.
    """

    kind: tuple[Kind, ...] = ()
    head: tuple[Head, ...] = ()
    augment: tuple[Literal["none", "flips", "rotations", "light"], ...] = ()
    rank: tuple[int, ...] = ()
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

    def with_auto(self, names: Collection[str]) -> "SearchConfig":
        """This search, with the values of `auto` on those of these axes that have none."""
        added: dict[str, Any] = {
            name: AUTO[name] for name in AUTO if name in names and not getattr(self, name)
        }
        return replace(self, **added)

    def heads(self, config: TuneConfig) -> tuple[Head, ...]:
        """Heads to choose among, that of ``config`` first."""
        return (config.head, *(head for head in self.head if head != config.head))

    def candidates(self, config: TuneConfig, head: Head | None = None) -> list[TuneConfig]:
        """``config`` itself, then each combination of values with it, in a fixed order.

        Args:
            config: Gives all settings that are not searched.
            head: Head of the combinations; None for that of ``config``.
        """
        own = _used(config, {})
        others = [values for values in self._combinations(config, head or config.head) if values != own]
        if len(others) >= self.num_candidates:
            others = random.Random(config.seed).sample(others, self.num_candidates - 1)
        return [config, *(replace(config, **dict(zip(AXES, values, strict=True))) for values in others)]

    def num_tuned(self, config: TuneConfig) -> int:
        """Candidates that take steps, at most: all but linear probes."""
        counts: list[int] = []
        for head in self.heads(config):
            found = {_used(config, {}), *self._combinations(config, head)}
            counts.append(sum(values[0] != "probe" for values in found))
        return min(max(counts), self.num_candidates)

    def _combinations(self, config: TuneConfig, head: Head) -> dict[tuple[Any, ...], None]:
        """Each different combination, as the values of ``AXES``."""
        axes = {axis: getattr(self, axis) for axis in AXES if axis != "head" and getattr(self, axis)}
        return dict.fromkeys(
            _used(config, {"head": head, **dict(zip(axes, values, strict=True))})
            for values in itertools.product(*axes.values())
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, in a fixed order."""
        return asdict(self)


_CHECK_VALUES: Check = (
    lambda values: isinstance(values, tuple) and len(set(values)) == len(values),
    "a list of different values",
)


def _used(config: TuneConfig, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of ``AXES``, where what the kind does not use is as in ``config``."""
    kind = values.get("kind", config.kind)
    idle: set[str] = set()
    if kind in ("probe", "lora"):
        idle |= {"num_independent", "threshold"}
    if kind in ("probe", "ship"):
        idle.add("rank")
    if kind == "probe":
        idle |= {"augment", "learning_rate", "weight_decay"}
    return tuple(
        getattr(config, axis) if axis in idle else values.get(axis, getattr(config, axis)) for axis in AXES
    )


def num_full_tunings(
    config: TuneConfig, search_config: SearchConfig | None, num_train: int, *, has_val: bool
) -> float:
    """Cost of comparing settings and of the tuning after it, in tunings, at most; see ``ship.tuning.search``.

    Linear probes cost no step.
    """
    wanted = search_config or SearchConfig()
    num_tuned = wanted.num_tuned(config)
    if num_tuned == 0:
        return 0.0
    compared = _halving_cost(num_tuned) if num_tuned > 1 or config.fallback else 0.0
    is_folded = not has_val and num_train < MIN_IMAGES_TO_HOLD_OUT
    return 1.0 + compared * (NUM_FOLDS if is_folded else 1)


def _halving_cost(num_candidates: int) -> float:
    """Tunings that successive halving takes: half a tuning for each of the last two, and so on."""
    num_rounds = max(1, math.ceil(math.log2(num_candidates)))
    return sum(
        math.ceil(num_candidates / (1 << number)) / (1 << num_rounds - number) for number in range(num_rounds)
    )
