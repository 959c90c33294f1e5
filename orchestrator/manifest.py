"""The manifest: which tasks to tune over which backbone. Read whole, and refused whole, with every problem.

It knows what a manifest may say, not what is in the data; ``orchestrator.plan`` looks there.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any

from orchestrator.check_gates import CheckGates
from orchestrator.errors import ManifestError
from orchestrator.manifest_schema import (
    MANIFEST_KEYS,
    describe_unknown_key,
    describe_value,
    find_schema_problems,
    find_tag_problem,
)
from orchestrator.names import check_task_name
from orchestrator.yaml_document import Place, YamlDocument, parse_yaml
from ship.config import TuneConfig
from ship.data import DataSource, find_folders, path_exists, read_small_file
from ship.errors import ConfigError, DataError
from ship.presets import PRESETS, Preset
from ship.search import SearchConfig

__all__ = ["Manifest", "TaskEntry", "load_manifest"]

MAX_MANIFEST_BYTES = 8 * 2**20
_NUM_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """One task of a manifest.

    Attributes:
        name: A task name.
        source: Its data; the path is absolute or a URL.
        config: The defaults with the task's own settings over them.
        tags: For people to find it by.
        preset: Chooses settings once the size of the data is known; None leaves ``config`` as it is.
        search: What to search; None leaves it to the preset.
        pinned: Names of settings that the manifest gives, which no preset may change.
    """

    name: str
    source: DataSource
    config: TuneConfig
    tags: Mapping[str, str] = field(default_factory=dict)
    preset: Preset | None = None
    search: SearchConfig | None = None
    pinned: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a manifest says.

    Attributes:
        backbone: ``bundled``, a timm name, or the path of a checkpoint.
        store: URL or path of the store of prompts; None leaves it to the settings.
        workers: Processes that tune at once; None leaves it to whoever runs them.
        tasks: At least one, in the order of the file, then those of ``tasks_from`` by name.
        gates: What the data must not exceed; see ``orchestrator.check``.
    """

    backbone: str
    store: str | None
    workers: int | None
    tasks: tuple[TaskEntry, ...]
    gates: CheckGates = field(default_factory=CheckGates)


def load_manifest(path: str) -> Manifest:
    """Read and check a manifest.

    Args:
        path: Of the YAML file, local or any fsspec URL; relative paths in it start from its folder.

    Raises:
        ManifestError: Lists every problem with its place and line.
    """
    try:
        document = parse_yaml(read_small_file(path, max_bytes=MAX_MANIFEST_BYTES))
    except DataError as error:
        raise ManifestError(error.problems) from error
    except ManifestError as error:
        raise ManifestError([f"{path}: {problem}" for problem in error.problems]) from error
    if not isinstance(document.value, dict):
        raise ManifestError(
            f"{path}: expected a mapping with {', '.join(MANIFEST_KEYS)}, "
            f"found {describe_value(document.value)}"
        )
    base = path.rpartition("/")[0] if "://" in path else os.path.dirname(os.path.abspath(path))
    reader = _Reader(document, base)
    manifest = reader.read()
    if reader.problems:
        raise ManifestError(reader.problems)
    return manifest


class _Reader:
    """Reads what it can and notes what it cannot, so that one run finds all problems."""

    def __init__(self, document: YamlDocument, base: str) -> None:
        self._problems: list[tuple[int, str]] = []
        # Kept apart from the entries: a task with a wrong setting has its name and path checked all the same.
        self._names: list[tuple[Place, str]] = []
        self._paths: list[tuple[Place, str]] = []
        self._shared_search: SearchConfig | None = None
        self._document = document
        self._base = base
        self._value: dict[str, Any] = _without_none(document.value)
        if isinstance(self._value.get("tasks"), list):
            self._value["tasks"] = [
                _without_none(task) if isinstance(task, dict) else task for task in self._value["tasks"]
            ]

    @property
    def problems(self) -> list[str]:
        """What was found so far, by line."""
        return [problem for _, problem in sorted(self._problems, key=lambda noted: noted[0])]

    def read(self) -> Manifest:
        """The manifest; to be used only if there are no problems."""
        value = self._value
        for place, problem in find_schema_problems(value):
            self._note(place, problem)
        defaults = self._settings(("defaults",), value.get("defaults"))
        self._shared_search = self._search(("search",), value.get("search"))
        entries = [*self._listed_tasks(defaults), *self._found_tasks(defaults)]
        if not value.get("tasks") and not value.get("tasks_from"):
            self._note((), "no tasks; list them under tasks, or name their folders by tasks_from")
        self._check_names()
        self._check_paths()
        store = value.get("store")
        return Manifest(
            backbone=self._backbone(str(value.get("backbone", "bundled"))),
            store=self._resolve(store) if isinstance(store, str) else None,
            workers=value.get("workers"),
            tasks=tuple(entries),
            gates=self._gates(),
        )

    def _note(self, place: Place, problem: str) -> None:
        self._problems.append((self._document.line(place), f"{self._document.describe(place)}: {problem}"))

    def _listed_tasks(self, defaults: dict[str, Any]) -> Iterator[TaskEntry]:
        tasks = self._value.get("tasks")
        for index, task in enumerate(tasks if isinstance(tasks, list) else ()):
            if not isinstance(task, dict):
                continue
            place: Place = ("tasks", index)
            name = self._name((*place, "name"), task.get("name"))
            source = self._source((*place, "data"), task["data"]) if "data" in task else None
            config = self._config((*place, "config"), defaults, task.get("config"))
            choice = self._choice(place, task, {**defaults, **_as_dict(task.get("config"))})
            tags = self._tags((*place, "tags"), task.get("tags"))
            if name is not None and source is not None and config is not None:
                yield TaskEntry(name=name, source=source, config=config, tags=tags, **choice)

    def _found_tasks(self, defaults: dict[str, Any]) -> Iterator[TaskEntry]:
        pattern = self._value.get("tasks_from")
        if not isinstance(pattern, str) or not pattern:
            return
        place: Place = ("tasks_from",)
        try:
            folders = find_folders(self._resolve(pattern))
        except DataError as error:
            self._note(place, str(error))
            return
        if not folders:
            self._note(place, f"no folder matches {self._resolve(pattern)}")
        config = self._config(place, defaults, {})
        choice = self._choice((), {}, defaults)
        for folder in folders:
            name = self._name(place, folder.rpartition("/")[2])
            if name is not None and config is not None:
                yield TaskEntry(name=name, source=DataSource(path=folder), config=config, **choice)

    def _name(self, place: Place, name: object) -> str | None:
        if not isinstance(name, str):
            return None
        try:
            check_task_name(name)
        except ManifestError as error:
            self._note(place, str(error))
            return None
        self._names.append((place, name))
        return name

    def _settings(self, place: Place, values: object) -> dict[str, Any]:
        """Settings of ``TuneConfig`` that are right on their own; notes the others."""
        if not isinstance(values, dict):
            return {}
        known = self._known_only(place, values, [field.name for field in fields(TuneConfig)])
        try:
            TuneConfig(**known)
        except ConfigError as error:
            wrong = self._note_fields(place, known, error.problems)
            return {name: value for name, value in known.items() if name not in wrong}
        if known.get("attention") == "joint":
            self._note((*place, "attention"), "`joint` is for comparisons in ship/: it cannot be served")
        return known

    def _config(self, place: Place, defaults: dict[str, Any], values: object) -> TuneConfig | None:
        own = self._settings(place, values)
        try:
            return TuneConfig(**{**defaults, **own})
        except ConfigError as error:
            # Each is right on its own, but not both together.
            self._note_fields(place, own, error.problems)
            return None

    def _choice(self, place: Place, task: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """How a task's settings are chosen: by its own keys, else by those of the manifest."""
        preset = task.get("preset", self._value.get("preset"))
        search = self._search((*place, "search"), task["search"]) if "search" in task else self._shared_search
        return {
            "preset": preset if preset in PRESETS else None,
            "search": search,
            "pinned": frozenset(given) if preset is not None else frozenset(),
        }

    def _search(self, place: Place, value: object) -> SearchConfig | None:
        if value is None:
            return None
        if value is False:
            return SearchConfig()
        if not isinstance(value, dict):
            self._note(place, f"expected lists of values by setting, or false, got {describe_value(value)}")
            return None
        known = self._known_only(place, value, [field.name for field in fields(SearchConfig)])
        lists: dict[str, Any] = {
            name: tuple(entry) if isinstance(entry, list) else entry for name, entry in known.items()
        }
        try:
            return SearchConfig(**lists)
        except (ConfigError, TypeError) as error:
            problems = error.problems if isinstance(error, ConfigError) else (str(error),)
            self._note_fields(place, known, problems)
            return None

    def _gates(self) -> CheckGates:
        place: Place = ("checks",)
        value = self._value.get("checks")
        if not isinstance(value, dict):
            return CheckGates()
        known = self._known_only(place, _without_none(value), [field.name for field in fields(CheckGates)])
        try:
            return CheckGates(**known)
        except ConfigError as error:
            self._note_fields(place, known, error.problems)
            return CheckGates()

    def _source(self, place: Place, value: object) -> DataSource | None:
        if isinstance(value, str):
            value = {"path": value}
        if not isinstance(value, dict):
            self._note(place, f"expected a path, or a mapping with a path, got {describe_value(value)}")
            return None
        known = self._known_only(place, _without_none(value), [field.name for field in fields(DataSource)])
        resolved = {
            name: self._resolve(entry)
            if name in ("path", "image_root") and isinstance(entry, str) and entry.strip()
            else entry
            for name, entry in known.items()
        }
        path = resolved.get("path")
        if isinstance(path, str) and path.strip():
            self._paths.append((place, path))
        try:
            return DataSource.from_dict(resolved)
        except ConfigError as error:
            self._note_fields(place, known, error.problems)
            return None

    def _tags(self, place: Place, tags: object) -> dict[str, str]:
        if not isinstance(tags, dict):
            return {}
        for key, value in tags.items():
            if problem := find_tag_problem(key, value):
                self._note((*place, key), problem)
        return {
            key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in tags.items()
        }

    def _known_only(self, place: Place, values: dict[str, Any], known: list[str]) -> dict[str, Any]:
        for name in values:
            if name not in known:
                self._note((*place, name), describe_unknown_key(name, known))
        return {name: value for name, value in values.items() if name in known}

    def _note_fields(self, place: Place, values: Mapping[str, Any], problems: Iterable[str]) -> set[str]:
        """Note problems that start with the field they are about; returns those fields."""
        wrong = set()
        for problem in problems:
            name, _, rest = problem.partition(": ")
            if name in values:
                wrong.add(name)
                self._note((*place, name), rest)
            else:
                self._note(place, problem)
        return wrong

    def _check_names(self) -> None:
        first: dict[str, Place] = {}
        for place, name in self._names:
            if name in first:
                self._note(place, f"{name!r} is already taken by {self._document.describe(first[name])}")
            first.setdefault(name, place)

    def _check_paths(self) -> None:
        def check(path: str) -> str | None:
            try:
                return None if path_exists(path) else f"no such file or folder: {path}"
            except DataError as error:
                return str(error)

        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            found = list(pool.map(check, [path for _, path in self._paths]))
        for (place, _), problem in zip(self._paths, found, strict=True):
            if problem is not None:
                self._note(place, problem)

    def _resolve(self, path: str) -> str:
        """A path as seen from the manifest's folder."""
        expanded = os.path.expanduser(path)
        if "://" in expanded or os.path.isabs(expanded):
            return expanded
        if "://" in self._base:
            return f"{self._base}/{os.path.normpath(expanded)}"
        return os.path.normpath(os.path.join(self._base, expanded))

    def _backbone(self, spec: str) -> str:
        # timm's names have no slash, but for those with a scheme (`hf-hub:owner/name`).
        return self._resolve(spec) if "/" in spec and ":" not in spec else spec


def _as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """A key without a value says as much as no key."""
    return {key: value for key, value in values.items() if value is not None}
