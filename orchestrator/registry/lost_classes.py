"""Classes of today's champion that a new version lost: it cannot answer them, or is not measured on them.

Where a folder was renamed or moved, shares of the classes that are left look as good as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.registry.measurement import Measurement

__all__ = ["NONE_LOST", "LostClasses", "find_lost"]

# Of a list of names in a message.
_LONGEST = 300


@dataclass(frozen=True, kw_only=True)
class LostClasses:
    """Classes of a champion that a version lost.

    Attributes:
        unknown: Names of those that are none of its classes.
        unmeasured: Names of those that it knows, and has no held-out image of, where the champion had some.
    """

    unknown: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.unknown or self.unmeasured)

    def __str__(self) -> str:
        """What is lost, after the version's name."""
        told = []
        if self.unknown:
            told.append(
                f"does not know {_listed(self.unknown)} of today's champion (it answers such pictures as "
                "something else)"
            )
        if self.unmeasured:
            told.append(
                f"has no held-out image of {_listed(self.unmeasured)}, which today's champion was measured on"
            )
        return ", and ".join(told)

    @property
    def remedy(self) -> str:
        """What brings them back."""
        told = []
        if self.unknown:
            told.append(f"put the images of {_names(self.unknown)} back, under that name")
        if self.unmeasured:
            told.append(f"add held-out images of {_names(self.unmeasured)}: there are none")
        return "; ".join(told)


NONE_LOST = LostClasses()


def find_lost(candidate: Measurement, champion: Measurement) -> LostClasses:
    """The classes of a champion that a version lost; none where a record of before does not name them.

    Args:
        candidate: The new version.
        champion: Today's champion.
    """
    known = {*candidate.classes, *candidate.unmeasured}
    if not known:
        return NONE_LOST
    return LostClasses(
        unknown=tuple(name for name in (*champion.classes, *champion.unmeasured) if name not in known),
        unmeasured=tuple(name for name in champion.classes if name in candidate.unmeasured),
    )


def _listed(names: Sequence[str]) -> str:
    return f"class{'' if len(names) == 1 else 'es'} {_names(names)}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))[:_LONGEST]
