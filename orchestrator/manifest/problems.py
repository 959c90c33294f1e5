"""Problems of a manifest, with their places, lines and the tasks that they belong to."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.manifest.yaml_document import Place, YamlDocument
from ship.redaction import redact_text

__all__ = ["MANIFEST", "Problems", "describe_unknown_key", "describe_value"]


# Owner of problems that belong to no single task.
MANIFEST: Place = ()


@dataclass(frozen=True, kw_only=True)
class _Problem:
    line: int
    message: str
    owners: tuple[Place, ...]


class Problems:
    """Collector of problems, so that one run finds all.

    A problem belongs to the task entry that its place is in; ``MANIFEST`` owns those of no single task.

    Args:
        document: The document of the places.
    """

    def __init__(self, document: YamlDocument) -> None:
        self._document = document
        self._noted: list[_Problem] = []

    def note(self, place: Place, problem: str, owners: Iterable[Place] | None = None) -> None:
        """Note a problem at a place; ``owners`` where they do not follow from the place."""
        chosen = (_owner_of(place),) if owners is None else tuple(owners)
        message = redact_text(f"{self.describe(place)}: {problem}")
        self._noted.append(_Problem(line=self._document.line(place), message=message, owners=chosen))

    def note_fields(self, place: Place, values: Mapping[str, Any], problems: Iterable[str]) -> set[str]:
        """Note problems that start with the name of a field; returns those names."""
        wrong = set()
        for problem in problems:
            name, _, rest = problem.partition(": ")
            if name in values:
                wrong.add(name)
                self.note((*place, name), rest)
            else:
                self.note(place, problem)
        return wrong

    def known_only(self, place: Place, values: Mapping[str, Any], known: list[str]) -> dict[str, Any]:
        """``values`` without unknown keys, which are noted."""
        for name in values:
            if name not in known:
                self.note((*place, name), describe_unknown_key(name, known))
        return {name: value for name, value in values.items() if name in known}

    def describe(self, place: Place) -> str:
        """A place for a message, with its line."""
        return self._document.describe(place)

    def all(self) -> list[str]:
        """Messages of all problems, by line."""
        return [problem.message for problem in self._in_order()]

    def by_owner(self) -> dict[Place, list[str]]:
        """Messages of ``MANIFEST`` and of each task entry, by line."""
        found: dict[Place, list[str]] = defaultdict(list)
        for problem in self._in_order():
            for owner in problem.owners:
                found[owner].append(problem.message)
        return dict(found)

    def _in_order(self) -> list[_Problem]:
        return sorted(self._noted, key=lambda problem: problem.line)


def _owner_of(place: Place) -> Place:
    return place[:2] if place[:1] == ("tasks",) and len(place) > 1 else MANIFEST


def describe_unknown_key(name: str, known: Iterable[str]) -> str:
    """The message for an unknown key."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return (
        f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known are {', '.join(known)}"
    )


def describe_value(value: object) -> str:
    """A value for a message: short, and collections by their kind."""
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    # Redacted before it is cut: half a URL is not known for one.
    text = redact_text(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
