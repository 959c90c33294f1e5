"""Registered models of tasks and their versions, as MLflow has them; what is broken is left out alone."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.errors import RegistryError
from orchestrator.names import MODEL_PREFIX, is_task_name, model_name
from orchestrator.registry.database_file import StoredModel
from orchestrator.registry.session import MlflowSession, NotRegisteredError, RegistryDown
from orchestrator.registry.versions import VersionInfo, aliases_at, read_version

__all__ = ["Models", "aliases_of", "number", "try_to_read"]

PAGE_SIZE = 1000
_logger = logging.getLogger(__name__)
_NO_VERSION = 0
# So many calls take as long as one listing of ten times as many versions.
_MANY = 50
# More than a rollout and a catalog take.
_MAX_DIGITS = 9


class Models:
    """Registered models of one MLflow, with a memory of their versions.

    Args:
        session: Connection to MLflow.
    """

    def __init__(self, session: MlflowSession) -> None:
        self._session = session
        # What a version points at never changes. Each has the creation time of its model, because a model
        # that was deleted and made again counts its versions from 1 again.
        self._known: dict[tuple[str, int], tuple[int, VersionInfo]] = {}

    def all(self) -> Iterator[tuple[str, Any]]:
        """All registered models that are tasks, with their aliases: one call for a thousand."""
        search = self._session.client.search_registered_models
        yield from self.of_tasks(self._list("the registered models", search, f"name LIKE '{MODEL_PREFIX}%'"))

    def of_tasks(self, models: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        """The registered models that are tasks, each with its task's name."""
        for model in models:
            task = model.name.removeprefix(MODEL_PREFIX)
            if task != model.name and is_task_name(task):
                # A file's listing has all that is asked of it.
                if not isinstance(model, StoredModel):
                    self.remember_latest(task, model)
                yield task, model

    def find(self, task: str) -> Any | None:
        """The registered model of a task; None if MLflow says that there is none."""
        # Checked before there is a client, which may make a database.
        name = model_name(task)
        try:
            with self._session.errors(f"look up task {task!r}"):
                return self._session.client.get_registered_model(name)
        except NotRegisteredError:
            return None

    def search_versions(self, condition: str) -> list[Any]:
        """All versions that fulfil a condition of MLflow's search, without their aliases."""
        return list(self._list("versions", self._session.client.search_model_versions, condition))

    def _list(self, what: str, search: Callable[..., Any], condition: str) -> Iterator[Any]:
        """All pages of one of MLflow's listings."""
        token = None
        while True:
            with self._session.errors(f"list {what}"):
                page = search(condition, max_results=PAGE_SIZE, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def remember_versions(self, models: Sequence[tuple[str, Any]], aliases: Collection[str]) -> None:
        """Learn all versions by one listing, if many that aliases name would take a call each.

        Args:
            models: Registered models of a server, each with its task's name.
            aliases: The aliases.
        """
        by_task = {task: model for task, model in models if not isinstance(model, StoredModel)}
        named = [
            (task, version)
            for task, model in by_task.items()
            for alias, version in aliases_of(model).items()
            if alias in aliases
        ]
        if sum(one not in self._known for one in named) < _MANY:
            return
        for found in self.search_versions(f"name LIKE '{MODEL_PREFIX}%'"):
            task = found.name.removeprefix(MODEL_PREFIX)
            if task in by_task and (info := try_to_read(found)) is not None:
                self._remember(task, by_task[task], info)

    def info(self, task: str, model: Any, version: int | None) -> VersionInfo | None:
        """A version that an alias names; None if there is no such alias, or the version is broken."""
        if version is None:
            return None
        if isinstance(model, StoredModel):
            # A file's listing has every version that an alias names, and no other call is needed.
            found = next((one for one in model.latest_versions if number(one) == version), None)
            return None if found is None else try_to_read(found, aliases_of(model))
        made, info = self._known.get((task, version), (None, None))
        if info is None or made != model.creation_timestamp:
            info = self._ask(task, model.name, version)
            if info is None:
                return None
            self._remember(task, model, info)
        return replace(info, aliases=aliases_at(aliases_of(model), version))

    def _ask(self, task: str, name: str, version: int) -> VersionInfo | None:
        """A version as MLflow has it; None if it has none of this number, or fails to read that one.

        Servers of older MLflow versions leave the aliases of a version that is deleted.
        """
        if version == _NO_VERSION:
            return None
        try:
            with self._session.errors(f"read version {version} of task {task!r}"):
                return try_to_read(self._session.client.get_model_version(name, str(version)))
        except RegistryDown as error:
            # Raises if it is not the version that is broken: MLflow is away.
            with self._session.errors("answer at all"):
                self._session.client.search_registered_models(max_results=1)
            _logger.warning("version %d of task %s is left out: %s", version, task, error)
        except RegistryError as error:
            _logger.debug("version %d of task %s is left out: %s", version, task, error)
        return None

    def remember_latest(self, task: str, model: Any) -> None:
        """A list of models carries each one's newest version, mostly its champion: that saves a call."""
        for found in model.latest_versions or ():
            if (info := try_to_read(found)) is not None:
                self._remember(task, model, info)

    def _remember(self, task: str, model: Any, info: VersionInfo) -> None:
        # MLflow lists a version that is being made before it has its tags.
        if info.digest is not None:
            self._known[task, info.version] = model.creation_timestamp, info

    def forget(self, task: str, version: int) -> None:
        """Ask MLflow about a version again, the next time."""
        self._known.pop((task, version), None)


def aliases_of(model: Any) -> dict[str, int]:
    """Versions by alias; that of an alias at no number is one that no version has."""
    return {name: _read_number(version) for name, version in (model.aliases or {}).items()}


def number(found: Any) -> int:
    """Number of a ``ModelVersion`` of MLflow's; 0, which no version has, if it is none."""
    return _read_number(found.version)


def _read_number(version: object) -> int:
    text = str(version)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else _NO_VERSION


def try_to_read(found: Any, aliases: Mapping[str, int] | None = None) -> VersionInfo | None:
    """A ``ModelVersion`` of MLflow's as a plain value; None if it has no number."""
    return read_version(found, aliases) if number(found) != _NO_VERSION else None
