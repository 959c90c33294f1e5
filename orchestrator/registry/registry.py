"""Names, versions and aliases of tasks: the model registry of MLflow, and nothing else of it.

A task is the registered model ``ship.<task>``; a version of it points at one artifact in the store by URI and
digest. Aliases: ``champion`` is served, ``challenger`` waits for a decision, ``previous`` is where a rollback
goes; ``canary`` and ``shadow`` are tried (``rollout``), and end when their version is promoted.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from orchestrator.errors import RegistryError
from orchestrator.names import MODEL_PREFIX, is_task_name, model_name
from orchestrator.registry.database_file import read_models
from orchestrator.registry.session import MlflowSession, RegistryDown
from orchestrator.registry.versions import (
    CANARY,
    CANARY_SHARE_TAG,
    CHALLENGER,
    CHAMPION,
    DIGEST_TAG,
    GATE_TAG,
    PREVIOUS,
    SHADOW,
    ModelView,
    Promotion,
    TaskInfo,
    VersionInfo,
    aliases_at,
    digests_of,
    read_version,
    version_tags,
)

__all__ = ["Registry", "RegistryDown"]

PAGE_SIZE = 1000
_LISTED_VERSIONS = 20


class Registry:
    """Names, versions and aliases in one MLflow. Nothing is opened before the first call.

    Every method raises ``RegistryDown`` when MLflow cannot be reached, ``RegistryError`` when it refuses.

    Args:
        tracking_uri: As in ``MLFLOW_TRACKING_URI``: sqlite or another database, or the URL of a server.
        artifact_location: Where files of runs go with an embedded MLflow; None leaves it to the server.
    """

    def __init__(self, tracking_uri: str, artifact_location: str | None = None) -> None:
        self.session = MlflowSession(tracking_uri, artifact_location)
        # What a version points at never changes. The model's creation time is part of the key, because a
        # model that was deleted and made again counts its versions from 1 again.
        self._known: dict[tuple[str, int, int], VersionInfo] = {}

    def register(
        self,
        task: str,
        *,
        digest: str,
        source: str,
        run_id: str | None,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        is_new: bool | None = None,
    ) -> VersionInfo:
        """Register an artifact as a version of its task, once: the same digest gives the same version.

        Args:
            task: Name of the task; its model is made if there is none.
            digest: Digest of the artifact.
            source: URI of the artifact.
            run_id: Id of the MLflow run that made it.
            metrics: Metrics as measured when it was tuned.
            tags: Further tags of the version, if it is made now.
            is_new: Whether the task has no model yet, if the caller has just looked.

        Returns:
            The version, without its aliases.
        """
        name = model_name(task)
        if self._find_model(task) is None if is_new is None else is_new:
            with self.session.errors(f"make the registered model {name!r}"):
                self.session.client.create_registered_model(name, tags={"ship.task": task})
        elif same := self._search_versions(f"name = '{name}' and tags.`{DIGEST_TAG}` = '{digest}'"):
            return read_version(same[0])
        with self.session.errors(f"register a version of task {task!r}"):
            made = self.session.client.create_model_version(
                name,
                source=source,
                run_id=run_id,
                tags=version_tags(digest, metrics, tags),
                # It has no files to wait for.
                await_creation_for=0,
            )
        return read_version(made)

    def standing(self, task: str) -> TaskInfo | None:
        """Summary of a task, in one call; None if it was never registered."""
        model = self._find_model(task)
        if model is None:
            return None
        self._remember_latest(task, model)
        return self._task_info(task, model)

    def versions(self, task: str) -> list[VersionInfo]:
        """All versions of a task, newest first.

        Raises:
            RegistryError: There is no such task.
        """
        aliases = _aliases_of(self._model(task))
        # MLflow's listing leaves aliases out.
        found = self._search_versions(f"name = '{model_name(task)}'")
        return sorted((read_version(version, aliases) for version in found), key=lambda info: -info.version)

    def version(self, task: str, version: int) -> VersionInfo:
        """One version of a task.

        Raises:
            RegistryError: There is no such task or version.
        """
        self._model(task)
        try:
            with self.session.errors(f"read version {version} of task {task!r}"):
                return read_version(self.session.client.get_model_version(model_name(task), str(version)))
        except RegistryDown:
            raise
        except RegistryError:
            raise RegistryError(
                f"task {task!r} has no version {version}; it has: {self._listed_versions(task)}"
            ) from None

    def champion(self, task: str) -> VersionInfo | None:
        """The version of a task that is served.

        Raises:
            RegistryError: There is no such task.
        """
        model = self._model(task)
        return self._info(task, model, model.aliases.get(CHAMPION))

    def models(self) -> list[ModelView]:
        """Aliases, tags and digests of all tasks: one call for a thousand, and one for each new version."""
        views = []
        for task, model in self._models():
            aliases = _aliases_of(model)
            infos = [self._info(task, model, version) for version in sorted(set(aliases.values()))]
            digests = {info.version: info.digest for info in infos if info is not None}
            views.append(ModelView(task=task, aliases=aliases, tags=dict(model.tags or {}), digests=digests))
        return views

    def aliases_and_tags(self, task: str) -> tuple[dict[str, int], dict[str, str]]:
        """Aliases and tags of a task's model.

        Raises:
            RegistryError: There is no such task.
        """
        model = self._model(task)
        return _aliases_of(model), dict(model.tags or {})

    def tasks(self) -> list[TaskInfo]:
        """All tasks, by name; read out of MLflow's file where that is possible, which is much faster."""
        stored = read_models(self.session.tracking_uri)
        models = self._models() if stored is None else self._tasks_of(stored)
        return sorted((self._task_info(task, model) for task, model in models), key=lambda info: info.task)

    def gated_digests(self) -> set[tuple[str, str]]:
        """Task and digest of every version that has been registered and gone through the gate."""
        versions = self._search_versions(f"name LIKE '{MODEL_PREFIX}%'")
        infos = [(found.name.removeprefix(MODEL_PREFIX), read_version(found)) for found in versions]
        return {
            (task, info.digest) for task, info in infos if info.digest is not None and GATE_TAG in info.tags
        }

    def referenced_digests(self) -> set[str]:
        """Digests of all artifacts that a version of any registered model names, by tag or by source.

        Raises:
            RegistryDown: There is no MLflow, or it cannot be asked. None is made.
        """
        self.session.check_exists()
        return set().union(*(digests_of(found) for found in self._search_versions("")))

    def set_champion(self, task: str, version: int) -> Promotion:
        """Serve a version from now on; the champion before it becomes ``previous``.

        Raises:
            RegistryError: There is no such task or version.
        """
        self.version(task, version)
        return self._crown(task, version, self._aliases(task))

    def admit(self, task: str, version: int, alias: str, before: TaskInfo | None) -> None:
        """Apply the gate's decision to a version that was just registered.

        Args:
            task: Name of the task.
            version: A registered version.
            alias: ``champion`` or ``challenger``.
            before: Summary of the task before the registration; None if it was not there.
        """
        if alias == CHAMPION:
            self._crown(task, version, {} if before is None else _aliases_before(before))
        else:
            self.set_alias(task, CHALLENGER, version)

    def set_challenger(self, task: str, version: int) -> None:
        """Make a version the challenger.

        Raises:
            RegistryError: There is no such task or version.
        """
        self.set_alias(task, CHALLENGER, self.version(task, version).version)

    def promote(self, task: str, version: int | None = None) -> Promotion:
        """Serve a version from now on.

        Args:
            task: Name of the task.
            version: Version to serve; None for the challenger.

        Raises:
            RegistryError: There is no such task or version, or no challenger.
        """
        if version is None and (version := self._aliases(task).get(CHALLENGER)) is None:
            raise RegistryError(
                f"task {task!r} has no challenger to promote; name a version: {self._listed_versions(task)}"
            )
        return self.set_champion(task, version)

    def rollback(self, task: str) -> Promotion:
        """Serve the previous champion again; a second rollback undoes the first.

        Raises:
            RegistryError: There is no such task, or it has had one champion only.
        """
        aliases = self._aliases(task)
        previous = aliases.get(PREVIOUS)
        if previous is None or previous == aliases.get(CHAMPION):
            raise RegistryError(
                f"task {task!r} has no previous champion to go back to; promote one of its versions: "
                f"{self._listed_versions(task)}"
            )
        return self.set_champion(task, previous)

    def set_alias(self, task: str, alias: str, version: int) -> None:
        """Move an alias to a registered version."""
        with self.session.errors(f"set @{alias} of task {task!r}"):
            self.session.client.set_registered_model_alias(model_name(task), alias, str(version))

    def end_trial(self, task: str, alias: str) -> None:
        """Drop ``canary``, and its share with it, or ``shadow``."""
        self._drop_alias(task, alias)
        if alias == CANARY:
            with self.session.errors(f"drop the canary's share of task {task!r}"):
                self.session.client.delete_registered_model_tag(model_name(task), CANARY_SHARE_TAG)

    def tag_version(self, task: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self.session.errors(f"tag version {version} of task {task!r}"):
            for key, value in tags.items():
                self.session.client.set_model_version_tag(model_name(task), str(version), key, value)

    def _models(self) -> Iterator[tuple[str, Any]]:
        """All registered models that are tasks, with their aliases: one call for a thousand."""
        token = None
        while True:
            with self.session.errors("list the registered models"):
                page = self.session.client.search_registered_models(
                    f"name LIKE '{MODEL_PREFIX}%'", max_results=PAGE_SIZE, page_token=token
                )
            yield from self._tasks_of(page)
            if not (token := page.token):
                return

    def _tasks_of(self, models: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        """The registered models that are tasks, each with its task's name."""
        for model in models:
            task = model.name.removeprefix(MODEL_PREFIX)
            if task != model.name and is_task_name(task):
                self._remember_latest(task, model)
                yield task, model

    def _find_model(self, task: str) -> Any | None:
        from mlflow.exceptions import MlflowException

        # Checked before there is a client, which may make a database.
        name = model_name(task)
        with self.session.errors(f"look up task {task!r}"):
            try:
                return self.session.client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def _model(self, task: str) -> Any:
        if (model := self._find_model(task)) is not None:
            return model
        close = get_close_matches(task, [name for name, _ in self._models()], n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "`ship ls` lists all tasks"
        raise RegistryError(f"no task {task!r} in the registry at {self.session.where}; {hint}")

    def _search_versions(self, condition: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            with self.session.errors("list versions"):
                page = self.session.client.search_model_versions(
                    condition, max_results=PAGE_SIZE, page_token=token
                )
            found += page
            if not (token := page.token):
                return found

    def _aliases(self, task: str) -> dict[str, int]:
        return _aliases_of(self._model(task))

    def _info(self, task: str, model: Any, version: str | int | None) -> VersionInfo | None:
        if version is None:
            return None
        key = (task, model.creation_timestamp, int(version))
        info = self._known.get(key)
        if info is None:
            with self.session.errors(f"read version {version} of task {task!r}"):
                found = self.session.client.get_model_version(model.name, str(version))
            info = self._remember(key, read_version(found))
        return replace(info, aliases=aliases_at(_aliases_of(model), int(version)))

    def _remember_latest(self, task: str, model: Any) -> None:
        """A list of models carries each one's newest version, mostly its champion: that saves a call."""
        for found in model.latest_versions or ():
            self._remember((task, model.creation_timestamp, int(found.version)), read_version(found))

    def _remember(self, key: tuple[str, int, int], info: VersionInfo) -> VersionInfo:
        # MLflow lists a version that is being made before it has its tags.
        if info.digest is not None:
            self._known[key] = info
        return info

    def _task_info(self, task: str, model: Any) -> TaskInfo:
        aliases = _aliases_of(model)
        return TaskInfo(
            task=task,
            champion=self._info(task, model, aliases.get(CHAMPION)),
            challenger=self._info(task, model, aliases.get(CHALLENGER)),
            previous=aliases.get(PREVIOUS),
            latest=max((int(found.version) for found in model.latest_versions or ()), default=None),
            updated_s=model.last_updated_timestamp / 1000,
            aliases=aliases,
            tags=dict(model.tags or {}),
        )

    def _crown(self, task: str, version: int, aliases: Mapping[str, int]) -> Promotion:
        before = aliases.get(CHAMPION)
        if before != version:
            # In this order: if the second call fails, the old champion still serves.
            if before is not None:
                self.set_alias(task, PREVIOUS, before)
            self.set_alias(task, CHAMPION, version)
        if aliases.get(CHALLENGER) == version:
            self._drop_alias(task, CHALLENGER)
        for alias in (CANARY, SHADOW):
            if aliases.get(alias) == version:
                self.end_trial(task, alias)
        return Promotion(task=task, from_version=before, to_version=version)

    def _drop_alias(self, task: str, alias: str) -> None:
        with self.session.errors(f"drop @{alias} of task {task!r}"):
            self.session.client.delete_registered_model_alias(model_name(task), alias)

    def _listed_versions(self, task: str) -> str:
        versions = [info.version for info in self.versions(task)]
        listed = ", ".join(map(str, versions[:_LISTED_VERSIONS])) or "none is left"
        return f"{listed}, ..." if len(versions) > _LISTED_VERSIONS else listed


def _aliases_of(model: Any) -> dict[str, int]:
    return {name: int(version) for name, version in model.aliases.items()}


def _aliases_before(standing: TaskInfo) -> dict[str, int]:
    holders = {CHAMPION: standing.champion, CHALLENGER: standing.challenger}
    return {alias: info.version for alias, info in holders.items() if info is not None}
