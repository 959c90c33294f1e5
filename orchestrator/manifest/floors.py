"""Floors of a task: the least that a version has to reach on held-out images before it may serve."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ship.settings.checks import check_settings, number

__all__ = ["Floors"]

_share = number("from 0 to 1", lambda v: 0.0 <= v <= 1.0)


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Floors of a task, which the gate holds a new version to; no part of the task key.

    Attributes:
        accuracy: Least accuracy.
        accuracy_low: Least lower end of its 95% interval.
        balanced_accuracy: Least mean recall of the classes.
        recall: Least recall by class, such as ``{scratch: 0.95}``.
    """

    accuracy: float = 0.0
    accuracy_low: float = 0.0
    balanced_accuracy: float = 0.0
    recall: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every floor.

        Raises:
            ConfigError: Lists all that are out of range.
        """
        is_valid, expected = _share
        check_settings(
            self,
            {
                **{each.name: _share for each in fields(self) if each.name != "recall"},
                "recall": (
                    lambda found: isinstance(found, Mapping) and all(map(is_valid, found.values())),
                    f"a mapping of classes, each with {expected}",
                ),
            },
        )
        object.__setattr__(self, "recall", {str(name): share for name, share in self.recall.items()})

    def to_dict(self) -> dict[str, Any]:
        """The floors that are set, as plain values."""
        return {name: value for name, value in vars(self).items() if value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The floors of ``to_dict``; keys of a later version are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
