"""Number of replicas of a deployment: fixed, or between two bounds by load."""

import re
from dataclasses import dataclass, replace
from typing import Self

from orchestrator.errors import ServeError

__all__ = ["Scale"]

_TEXT = re.compile(r"(?P<fixed>[0-9]{1,4})|auto(:(?P<least>[0-9]{1,4})-(?P<most>[0-9]{1,4}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Bounds of a number of replicas, which is fixed where both are the same.

    Attributes:
        least: Fewest replicas, at least 1; None for what suits the cluster.
        most: Most replicas; None for what suits the cluster.
    """

    least: int | None = 1
    most: int | None = 1

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``3``, ``auto`` or ``auto:1-8``.

        Raises:
            ServeError: It is none of these.
        """
        found = _TEXT.fullmatch(text)
        if found is not None and found["fixed"] is None and found["least"] is None:
            return cls(least=None, most=None)
        if found is not None:
            least = int(found["fixed"] or found["least"])
            most = int(found["fixed"] or found["most"])
            if 1 <= least <= most:
                return cls(least=least, most=most)
        raise ServeError(
            f"{text[:40]!r} is no number of replicas: expected a number such as 2, or auto, or bounds "
            "such as auto:1-8"
        )

    @property
    def is_open(self) -> bool:
        """Whether the cluster decides on the bounds."""
        return self.least is None

    def within(self, least: int, most: int) -> Self:
        """The scale with these bounds where it is open."""
        return replace(self, least=least, most=max(least, most)) if self.is_open else self
