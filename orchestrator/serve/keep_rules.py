"""Rules that say which pictures an endpoint keeps: ``unsure,far,sample=0.01``, of all tasks or of some."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import Answer
from orchestrator.store.documents.kept import KeepReason

__all__ = ["KeepRule", "find_reason", "read_rules"]

_EXPECTED = (
    "expected any of unsure, far, far=DISTANCE and sample=SHARE with commas between them, such as "
    "unsure,sample=0.01, or none; a task or a pattern with a colon may stand before, such as line-1-*:unsure"
)


@dataclass(frozen=True, kw_only=True)
class KeepRule:
    """What is kept of the tasks of a pattern.

    Attributes:
        pattern: Name of a task, or a pattern of names.
        unsure: Whether pictures are kept that were answered ``unsure``, but for ``far`` ones.
        far: Whether pictures are kept that the decision rule found ``far``.
        distance: Distance from which on pictures are kept as ``far`` ones; None to leave it to the rule.
        sample: Share of all other pictures that is drawn.
    """

    pattern: str = "*"
    unsure: bool = False
    far: bool = False
    distance: float | None = None
    sample: float = 0.0

    @classmethod
    def read(cls, text: str) -> Self:
        """The rule in a text.

        Raises:
            ServeError: It is none.
        """
        pattern, colon, words = text.strip().rpartition(":")
        found: dict[str, float | None] = {}
        for word in words.split(",") if words != "none" else []:
            name, equals, number = word.strip().partition("=")
            value = _number(number) if equals else None
            if name in found or (name, bool(equals)) not in _WORDS or not _fits(name, value):
                raise ServeError(f"keep {text[:80]!r}: {_EXPECTED}")
            found[name] = value
        if (colon and not pattern) or not words:
            raise ServeError(f"keep {text[:80]!r}: {_EXPECTED}")
        return cls(
            pattern=pattern or "*",
            unsure="unsure" in found,
            far="far" in found,
            distance=found.get("far"),
            sample=found.get("sample") or 0.0,
        )

    def reason(self, answer: Answer, draw: float) -> KeepReason | None:
        """Why the picture of an answer is to be kept; None if it is not.

        Args:
            answer: The answer.
            draw: A number drawn from 0 to below 1.
        """
        is_beyond = self.distance is not None and (answer.distance or 0.0) >= self.distance
        if self.far and (answer.because == "far" or is_beyond):
            return "far"
        if self.unsure and answer.because not in (None, "far"):
            return "unsure"
        return "sample" if draw < self.sample else None


_WORDS = {("unsure", False), ("far", False), ("far", True), ("sample", True)}


def read_rules(texts: Iterable[str]) -> tuple[KeepRule, ...]:
    """The rules in texts.

    Raises:
        ServeError: One of them is none.
    """
    return tuple(map(KeepRule.read, texts))


def find_reason(rules: Iterable[KeepRule], answer: Answer, draw: float) -> KeepReason | None:
    """Why the picture of an answer is to be kept, by the last rule whose pattern its task has."""
    own = [rule for rule in rules if fnmatchcase(answer.task, rule.pattern)]
    return own[-1].reason(answer, draw) if own else None


def _number(text: str) -> float:
    try:
        return float(text) if text.isascii() else math.nan
    except ValueError:
        return math.nan


def _fits(name: str, value: float | None) -> bool:
    if value is None:
        return True
    return 0.0 < value <= 1.0 if name == "sample" else 0.0 <= value < math.inf
