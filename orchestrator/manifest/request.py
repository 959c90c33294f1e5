"""A command's choices for a manifest: selection of tasks, limits and the pool."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from orchestrator.errors import ManifestError
from orchestrator.manifest.load import load_manifest
from orchestrator.manifest.model import Manifest, PoolSettings, RefusedTask, TaskEntry

__all__ = ["Request", "Selection"]

_NUM_SUGGESTIONS = 3
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Selection of tasks by the flags ``--only`` and ``--tag``.

    Attributes:
        only: Names, or patterns with ``*``, ``?`` and ``[...]``; one must match. Empty for all tasks.
        tags: Tags that must all match.
    """

    only: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_flags(cls, only: Sequence[str], tags: Sequence[str]) -> "Selection":
        """A selection from names and ``KEY=VALUE`` pairs.

        Raises:
            ManifestError: Lists every tag that is not such a pair.
        """
        pairs = [tag.partition("=") for tag in tags]
        if wrong := [tag for tag, (key, sign, _) in zip(tags, pairs, strict=True) if not key or not sign]:
            raise ManifestError([f"--tag {tag}: expected KEY=VALUE, such as site=ulm" for tag in wrong])
        return cls(only=tuple(only), tags={key: value for key, _, value in pairs})

    def apply(self, manifest: Manifest) -> Manifest:
        """The manifest with the selected tasks only, valid and refused ones.

        Raises:
            ManifestError: A name or pattern matches no task, or no task has all the tags.
        """
        known: list[TaskEntry | RefusedTask] = [*manifest.tasks, *manifest.refused]
        names = {task.name for task in known}
        if problems := self._find_unknown(names):
            raise ManifestError(problems)
        named = self._named(names)

        def is_selected(task: TaskEntry | RefusedTask) -> bool:
            return task.name in named and self.tags.items() <= task.tags.items()

        chosen = replace(
            manifest,
            tasks=tuple(task for task in manifest.tasks if is_selected(task)),
            refused=tuple(task for task in manifest.refused if is_selected(task)),
        )
        if not chosen.tasks and not chosen.refused:
            subject = "no task selected by --only" if self.only else "no task"
            tags = " and ".join(f"{key}={value}" for key, value in self.tags.items())
            raise ManifestError(f"{subject} has the tags {tags}{_describe_tags(known, self.tags)}")
        return chosen

    def _named(self, names: set[str]) -> set[str]:
        """The names that ``only`` selects. Thousands of plain names cost one look-up each."""
        patterns = [name for name in self.only if not _WILDCARDS.isdisjoint(name)]
        matching = {name for name in names for pattern in patterns if fnmatchcase(name, pattern)}
        return names if not self.only else matching | (names & set(self.only))

    def _find_unknown(self, names: set[str]) -> list[str]:
        problems = []
        for name in self.only:
            if _WILDCARDS.isdisjoint(name):
                if name not in names:
                    problems.append(f"--only {name}: the manifest has no such task{_suggest(name, names)}")
            elif not any(fnmatchcase(known, name) for known in names):
                problems.append(f"--only {name}: matches none of the manifest's {len(names)} tasks")
        return problems


@dataclass(frozen=True, kw_only=True)
class Request:
    """A user's choices for a manifest.

    Attributes:
        selection: Selection of tasks.
        keep_going: Whether valid tasks run although others have problems.
        max_tasks: Most tasks to tune in one run; None takes the manifest's, else 1000.
        pool: Size and executor of the pool; a None takes the manifest's value.
        refused: Reasons, by task, not to tune it that do not come from the manifest.
        thumbnails: Whether small pictures of mistakes may be kept; False overrides the manifest.
    """

    selection: Selection = field(default_factory=Selection)
    keep_going: bool = False
    max_tasks: int | None = None
    pool: PoolSettings = field(default_factory=PoolSettings)
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    thumbnails: bool = True

    def load(self, path: str) -> Manifest:
        """The manifest with the selected tasks.

        Raises:
            ManifestError: Lists every problem of the manifest or of the selection.
        """
        manifest = self.selection.apply(load_manifest(path, keep_going=self.keep_going))
        late = [
            RefusedTask(name=task.name, reasons=self.refused[task.name], tags=task.tags)
            for task in manifest.tasks
            if task.name in self.refused
        ]
        return replace(
            manifest,
            tasks=tuple(
                replace(task, thumbnails=task.thumbnails and self.thumbnails)
                for task in manifest.tasks
                if task.name not in self.refused
            ),
            refused=(*manifest.refused, *late),
            pool=self.pool.over(manifest.pool),
        )


def _suggest(name: str, names: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=_NUM_SUGGESTIONS)
    return f"; did you mean {', '.join(map(repr, close))}?" if close else f"; it has {len(names)} others"


def _describe_tags(known: Sequence[TaskEntry | RefusedTask], tags: Mapping[str, str]) -> str:
    """The values that the manifest has for the selected keys."""
    parts = []
    for key in tags:
        values = sorted({task.tags[key] for task in known if key in task.tags})
        shown = ", ".join(values[:10]) + (", ..." if len(values) > 10 else "")
        parts.append(f"{key} is one of {shown}" if values else f"no task has a tag {key!r}")
    return f"; {'; '.join(parts)}"
