"""Selection of tasks by name and tag, of a manifest or of the registry. It loads fast."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from orchestrator.errors import ManifestError

if TYPE_CHECKING:
    from orchestrator.manifest.model import Manifest, RefusedTask, TaskEntry

__all__ = ["Selection"]

_NUM_SUGGESTIONS = 3
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Selection of tasks by the flags ``--only`` and ``--tag``.

    Attributes:
        only: Names, or patterns with ``*``, ``?`` and ``[...]``; one must match. Empty for all tasks.
        tags: Names and values of tags, which a task must all have.
    """

    only: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_flags(cls, only: Sequence[str], tags: Sequence[str]) -> "Selection":
        """A selection from names and ``KEY=VALUE`` pairs.

        Raises:
            ManifestError: Lists every tag that is not such a pair.
        """
        pairs = [tag.partition("=") for tag in tags]
        if wrong := [tag for tag, (key, sign, _) in zip(tags, pairs, strict=True) if not key or not sign]:
            raise ManifestError([f"--tag {tag}: expected KEY=VALUE, such as site=ulm" for tag in wrong])
        return cls(only=tuple(only), tags=tuple((key, value) for key, _, value in pairs))

    def apply(self, manifest: "Manifest") -> "Manifest":
        """The manifest with the selected tasks only, valid and refused ones.

        Raises:
            ManifestError: A name or pattern matches no task, or no task has all the tags.
        """
        known: list[TaskEntry | RefusedTask] = [*manifest.tasks, *manifest.refused]
        named = self._named({task.name for task in known}, "the manifest")

        def is_selected(task: "TaskEntry | RefusedTask") -> bool:
            return task.name in named and self._has_tags(task.tags)

        chosen = replace(
            manifest,
            tasks=tuple(task for task in manifest.tasks if is_selected(task)),
            refused=tuple(task for task in manifest.refused if is_selected(task)),
        )
        if not chosen.tasks and not chosen.refused:
            raise self._no_task([task.tags for task in known])
        return chosen

    def choose(self, tags_of: Mapping[str, Mapping[str, str]], where: str) -> set[str]:
        """Names of the selected tasks.

        Args:
            tags_of: Tags of all tasks, by name.
            where: Noun for what has the tasks, for messages.

        Raises:
            ManifestError: A name or pattern matches no task, or no task has all the tags.
        """
        named = self._named(set(tags_of), where)
        chosen = {name for name in named if self._has_tags(tags_of[name])}
        if self.tags and not chosen:
            raise self._no_task(list(tags_of.values()))
        return chosen

    def _has_tags(self, tags: Mapping[str, str]) -> bool:
        return all(tags.get(key) == value for key, value in self.tags)

    def _no_task(self, known: Sequence[Mapping[str, str]]) -> ManifestError:
        subject = "no task selected by --only" if self.only else "no task"
        wanted = " and ".join(f"{key}={value}" for key, value in self.tags)
        return ManifestError(f"{subject} has the tags {wanted}{_describe_tags(known, self.tags)}")

    def _named(self, names: set[str], where: str) -> set[str]:
        """The names that ``only`` selects. Thousands of plain names cost one look-up each."""
        if problems := self._find_unknown(names, where):
            raise ManifestError(problems)
        patterns = [name for name in self.only if not _WILDCARDS.isdisjoint(name)]
        matching = {name for name in names for pattern in patterns if fnmatchcase(name, pattern)}
        return names if not self.only else matching | (names & set(self.only))

    def _find_unknown(self, names: set[str], where: str) -> list[str]:
        problems = []
        for name in self.only:
            if _WILDCARDS.isdisjoint(name):
                if name not in names:
                    problems.append(f"--only {name}: {where} has no such task{_suggest(name, names)}")
            elif not any(fnmatchcase(known, name) for known in names):
                problems.append(f"--only {name}: matches none of the {len(names)} tasks of {where}")
        return problems


def _suggest(name: str, names: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=_NUM_SUGGESTIONS)
    return f"; did you mean {', '.join(map(repr, close))}?" if close else f"; it has {len(names)} others"


def _describe_tags(known: Sequence[Mapping[str, str]], tags: Sequence[tuple[str, str]]) -> str:
    """The values that there are for the selected keys."""
    parts = []
    for key in dict(tags):
        values = sorted({each[key] for each in known if key in each})
        shown = ", ".join(values[:10]) + (", ..." if len(values) > 10 else "")
        parts.append(f"{key} is one of {shown}" if values else f"no task has a tag {key!r}")
    return f"; {'; '.join(parts)}"
