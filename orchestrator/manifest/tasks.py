"""Reader of a manifest's tasks: those under ``tasks``, then those in the folders of ``tasks_from``."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from orchestrator.errors import ManifestError
from orchestrator.manifest.model import RefusedTask, TaskEntry
from orchestrator.manifest.paths import PathResolver
from orchestrator.manifest.problems import MANIFEST, Problems, describe_value
from orchestrator.manifest.schema import find_folder_problems
from orchestrator.manifest.settings import Defaults, read_task_settings, without_none
from orchestrator.manifest.yaml_document import Place
from orchestrator.names import check_task_name
from ship.data import TABLE_FORMATS, TABLE_SUFFIXES, DataSource, find_folders, path_exists
from ship.errors import ConfigError, DataError
from ship.in_order import map_in_order

__all__ = ["TaskReader"]

_NUM_THREADS = 8


class TaskReader:
    """Reads valid tasks, and notes the problems of the others.

    Args:
        problems: Collects the problems.
        resolver: Makes paths absolute.
        defaults: Defaults of the manifest.
    """

    def __init__(self, problems: Problems, resolver: PathResolver, defaults: Defaults) -> None:
        self._problems = problems
        self._resolver = resolver
        self._defaults = defaults
        # By the place of an entry, and below that of `tasks_from` by folder. Names and paths are kept apart
        # from entries: a task with a wrong setting has its name and path checked all the same.
        self._entries: dict[Place, TaskEntry] = {}
        self._names: dict[Place, tuple[Place, str]] = {}
        self._tags: dict[Place, Mapping[str, str]] = {}
        self._paths: list[tuple[Place, str]] = []

    def read(self, manifest: Mapping[str, Any]) -> None:
        """Read ``tasks`` and ``tasks_from``."""
        tasks = manifest.get("tasks")
        for index, task in enumerate(tasks if isinstance(tasks, list) else ()):
            if isinstance(task, dict):
                self._read_listed(("tasks", index), task)
        for place, folder in self._folders(manifest.get("tasks_from")):
            self._read_found(place, folder)
        self._check_names()
        self._check_paths()

    def sound(self) -> tuple[TaskEntry, ...]:
        """Tasks without a problem."""
        spoiled = self._problems.by_owner()
        return tuple(entry for owner, entry in self._entries.items() if owner not in spoiled)

    def refused(self) -> tuple[RefusedTask, ...]:
        """Tasks with a problem, in the order of lines."""
        return tuple(
            RefusedTask(
                name=self._names[owner][1] if owner in self._names else self._problems.describe(owner),
                reasons=tuple(reasons),
                tags=self._tags.get(owner, {}),
            )
            for owner, reasons in self._problems.by_owner().items()
            if owner != MANIFEST
        )

    def _read_listed(self, place: Place, task: Mapping[str, Any]) -> None:
        name = self._read_name(place, (*place, "name"), task.get("name"))
        source = self._read_source((*place, "data"), task["data"]) if "data" in task else None
        settings = read_task_settings(self._problems, place, task, self._defaults)
        self._tags[place] = settings["tags"] if settings else self._defaults.tags
        if name is not None and source is not None and settings is not None:
            self._entries[place] = TaskEntry(name=name, source=source, **settings)

    def _folders(self, value: object) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        """The entries of ``tasks_from`` as mappings."""
        if value is None:
            return
        for index, folder in enumerate(value if isinstance(value, list) else [value]):
            place: Place = ("tasks_from", index) if isinstance(value, list) else ("tasks_from",)
            mapping = without_none(folder) if isinstance(folder, dict) else {"path": folder}
            if not isinstance(folder, (str, dict)):
                self._problems.note(
                    place, f"expected a path, or a mapping with a path, got {describe_value(folder)}"
                )
                continue
            wrong = find_folder_problems(mapping)
            for inner, problem in wrong:
                self._problems.note((*place, *inner), problem)
            if not any(inner[:1] == ("path",) for inner, _ in wrong):
                yield place, mapping

    def _read_found(self, place: Place, folder: Mapping[str, Any]) -> None:
        settings = read_task_settings(self._problems, place, folder, self._defaults)
        pattern = self._resolver.resolve(folder["path"])
        try:
            paths = find_folders(pattern)
        except DataError as error:
            self._problems.note(place, str(error))
            return
        if not paths:
            self._problems.note(place, f"no folder matches {pattern}")
        for path in paths:
            owner: Place = (*place, path)
            name = self._read_name(owner, place, path.rpartition("/")[2])
            if settings is not None:
                self._tags[owner] = settings["tags"]
                source = self._make_source(place, {"path": path})
                if name is not None and source is not None:
                    self._entries[owner] = TaskEntry(name=name, source=source, **settings)

    def _read_name(self, owner: Place, place: Place, name: object) -> str | None:
        if not isinstance(name, str):
            return None
        try:
            check_task_name(name)
        except ManifestError as error:
            self._problems.note(place, str(error), owners=[owner])
            return None
        self._names[owner] = (place, name)
        return name

    def _read_source(self, place: Place, value: object) -> DataSource | None:
        if isinstance(value, str):
            value = {"path": value}
        if not isinstance(value, dict):
            self._problems.note(
                place, f"expected a path, or a mapping with a path, got {describe_value(value)}"
            )
            return None
        known = self._problems.known_only(
            place, without_none(value), [field.name for field in fields(DataSource)]
        )
        if isinstance(path := known.get("path"), str) and path.strip():
            self._paths.append((place, self._resolver.resolve(path)))
        return self._make_source(place, known)

    def _make_source(self, place: Place, own: Mapping[str, Any]) -> DataSource | None:
        """A task's data: its own settings over the defaults."""
        defaults = dict(self._defaults.data)
        path, format_ = own.get("path"), own.get("format", defaults.get("format", "auto"))
        is_table = format_ in TABLE_FORMATS or (
            format_ == "auto" and isinstance(path, str) and path.lower().endswith(TABLE_SUFFIXES)
        )
        if not is_table:
            # Of the tasks whose data are a table; a folder of images needs none.
            defaults.pop("image_root", None)
        resolved = {
            name: self._resolver.resolve(entry)
            if name in ("path", "image_root", "more") and isinstance(entry, str) and entry.strip()
            else entry
            for name, entry in {**defaults, **own}.items()
        }
        try:
            source = DataSource.from_dict(resolved)
        except ConfigError as error:
            self._problems.note_fields(place, own, error.problems)
            return None
        for name in ("image_root", "more"):
            if (given := getattr(source, name)) is not None:
                self._paths.append(((*place, name) if name in own else place, given))
        return source

    def _check_names(self) -> None:
        """Note a problem of both tasks where two have the same name."""
        first: dict[str, Place] = {}
        for owner, (place, name) in self._names.items():
            earlier = first.setdefault(name, owner)
            if earlier != owner:
                taken = self._problems.describe(self._names[earlier][0])
                self._problems.note(place, f"{name!r} is already taken by {taken}", owners=[earlier, owner])

    def _check_paths(self) -> None:
        def check(path: str) -> str | None:
            try:
                return None if path_exists(path) else f"no such file or folder: {path}"
            except DataError as error:
                return str(error)

        distinct = list(dict.fromkeys(path for _, path in self._paths))
        found = dict(zip(distinct, map_in_order(check, distinct, _NUM_THREADS), strict=True))
        for place, path in self._paths:
            if (problem := found[path]) is not None:
                self._problems.note(place, problem)
