"""The exceptions of ``ship``, one tree::

    ShipError
    ├── ConfigError      a setting that cannot work
    ├── BackboneError    a backbone that is unknown, unreadable or not supported exactly
    ├── DataError        a data set that cannot be used; lists every problem found
    ├── ImageError       one image that cannot be decoded
    ├── ArtifactError    a saved prompt that is refused
    ├── TuningError      tuning that went wrong, such as a loss that is not finite
    ├── PackError        a step of several tasks that failed, by a fault of an unknown one of them
    └── SlotsFullError   no room for another prompt in a runtime
        └── PromptTooLargeError   a prompt that is larger than the whole slot pool

Every one of them survives pickling, because Ray carries them between processes.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from ship.redaction import redact_text

__all__ = [
    "ArtifactError",
    "BackboneError",
    "ConfigError",
    "DataError",
    "ImageError",
    "PackError",
    "PromptTooLargeError",
    "ShipError",
    "SlotsFullError",
    "TuningError",
    "group_alike",
]

MAX_LISTED_PROBLEMS = 20
MAX_ALIKE = 3
MAX_CHARS = 2000


class ShipError(Exception):
    """Base of all errors that a user can cause or fix.

    Args:
        problems: One message, or several that were found in one go. Secrets of URLs in them are left out, and
            what is longer than ``MAX_CHARS``, such as a key of a file that is not what it should be, is cut.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        found = (problems,) if isinstance(problems, str) else tuple(problems)
        # Messages go to terminals, logs and MLflow, and many name a URL.
        self.problems: tuple[str, ...] = tuple(_shortened(redact_text(problem)) for problem in found)
        super().__init__(self.problems[0] if len(self.problems) == 1 else self.problems)

    def __str__(self) -> str:
        """All problems, one a line; many that differ by their places alone are one, with their number."""
        if len(self.problems) == 1:
            return self.problems[0]
        found = group_alike(self.problems)
        listed = [f"- {problem}" for problem in found[:MAX_LISTED_PROBLEMS]]
        if len(found) > MAX_LISTED_PROBLEMS:
            listed.append(f"- ... and {len(found) - MAX_LISTED_PROBLEMS} more")
        return "\n".join([f"{len(self.problems)} problems:", *listed])


def _shortened(problem: str) -> str:
    return problem if len(problem) <= MAX_CHARS else f"{problem[: MAX_CHARS - 3]}..."


def group_alike(problems: Sequence[str]) -> list[str]:
    """The problems, where more than ``MAX_ALIKE`` with the same words after their places are one.

    Args:
        problems: Messages that end in ``: words``, or have no place.
    """
    alike: dict[str, list[str]] = {}
    for problem in problems:
        place, _, words = problem.rpartition(": ")
        alike.setdefault(words, []).append(place)
    found: list[str] = []
    said: set[str] = set()
    for problem in problems:
        words = problem.rpartition(": ")[2]
        if len(alike[words]) <= MAX_ALIKE:
            found.append(problem)
        elif words not in said:
            said.add(words)
            places = list(dict.fromkeys(filter(None, alike[words])))
            shown = places[:MAX_ALIKE] + ["..."] * (len(places) > MAX_ALIKE)
            found.append(f"{', '.join(shown)} ({len(alike[words])} times): {words}".lstrip())
    return found


class ConfigError(ShipError):
    """A setting is out of range, or does not fit the backbone or the data."""


class BackboneError(ShipError):
    """A backbone is unknown, unreadable, or a kind that the method cannot run exactly."""


class DataError(ShipError):
    """A data set cannot be used as it is."""


class ImageError(ShipError):
    """One image cannot be decoded.

    Args:
        problems: Description of what is wrong with the image.
        kind: ``unsupported`` (not an image, or a format that is not allowed), ``corrupt`` (the right
            format, but broken), ``too_large`` (more pixels than allowed), ``too_small`` (it does not hold
            the task's crop) or ``too_costly`` (decoding it takes more work than its pixels warrant).
    """

    def __init__(
        self,
        problems: str | Iterable[str],
        kind: Literal["unsupported", "corrupt", "too_large", "too_small", "too_costly"] = "corrupt",
    ) -> None:
        super().__init__(problems)
        self.kind = kind

    def __reduce__(self) -> tuple[type["ImageError"], tuple[tuple[str, ...], str]]:
        """Keep ``kind`` when pickled."""
        return type(self), (self.problems, self.kind)


class ArtifactError(ShipError):
    """A saved prompt is damaged, foreign, or does not belong to this backbone."""


class TuningError(ShipError):
    """Tuning cannot go on."""


class PackError(ShipError):
    """A step of several tasks failed, by a fault of an unknown one of them. Its cause is the first error."""

    @classmethod
    def of(cls, error: Exception, num_tasks: int) -> "PackError":
        """The error that each task of the pack gets."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        made = cls(f"a step of {num_tasks} tasks failed: {type(error).__name__}: {lines[0]}")
        made.__cause__ = error
        return made


class SlotsFullError(ShipError):
    """A prompt does not fit into what is free of the slot pool.

    Args:
        problems: Description of the prompt, the pool and the lack.
        lacking_bytes: Further bytes that would have to be free.
    """

    def __init__(self, problems: str | Iterable[str], lacking_bytes: int = 1) -> None:
        super().__init__(problems)
        self.lacking_bytes = lacking_bytes


class PromptTooLargeError(SlotsFullError):
    """A prompt is larger than the whole slot pool: evicting others does not help."""
