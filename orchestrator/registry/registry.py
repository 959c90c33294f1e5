"""Names, versions and aliases of tasks: the model registry of MLflow, and nothing else of it.

A task is the registered model ``ship.<task>``; a version of it points at one artifact in the store by URI and
digest. Aliases: ``champion`` is served, ``challenger`` waits for a decision, ``previous`` is where a rollback
goes; ``canary`` and ``shadow`` are tried. They follow the task's rollout in the store, see ``rollouts``.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from orchestrator.errors import RegistryError
from orchestrator.names import MODEL_PREFIX, model_name
from orchestrator.registry.database_file import StoredModel, read_models
from orchestrator.registry.models import Models, aliases_of, number, try_to_read
from orchestrator.registry.session import MlflowSession, NotRegisteredError, RegistryDown, RegistryMissing
from orchestrator.registry.versions import (
    BACKBONE_TAG,
    CANARY_SHARE_TAG,
    CHALLENGER,
    CHAMPION,
    DIGEST_TAG,
    FINGERPRINT_TAG,
    GATE_TAG,
    PREVIOUS,
    SINCE_TAG,
    TAGS_TAG,
    ModelView,
    TaskInfo,
    VersionInfo,
    digests_of,
    given_tags,
    own_tags,
    read_tags,
    read_time_s,
    read_version,
    version_tags,
)

__all__ = ["Registry", "RegistryDown", "RegistryMissing"]

_logger = logging.getLogger(__name__)
_LISTED_VERSIONS = 20
_SHOWN = (CHAMPION, CHALLENGER)


class Registry:
    """Names, versions and aliases in one MLflow. Nothing is opened before the first call.

    Every method raises ``RegistryDown`` when MLflow cannot be reached, ``RegistryError`` when it refuses.

    Args:
        tracking_uri: As in ``MLFLOW_TRACKING_URI``: sqlite or another database, or the URL of a server.
        artifact_location: Where files of runs go with an embedded MLflow; None leaves it to the server.
        may_create: Whether a database that is not there is made, see ``MlflowSession``.
        session: Connection to use in place of one that these make.
    """

    def __init__(
        self,
        tracking_uri: str,
        artifact_location: str | None = None,
        *,
        may_create: bool = False,
        session: MlflowSession | None = None,
    ) -> None:
        self.session = session or MlflowSession(tracking_uri, artifact_location, may_create=may_create)
        self._models = Models(self.session)

    def register(
        self,
        task: str,
        *,
        digest: str,
        source: str,
        run_id: str | None,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> VersionInfo:
        """Register an artifact as a version of its task, once: the same digest gives the same version.

        MLflow's client repeats a request whose answer was lost, and two recorders may register one digest at
        the same time: of several versions of one digest the first stays, and the others are deleted.

        Args:
            task: Name of the task; its model is made if there is none.
            digest: Digest of the artifact.
            source: URI of the artifact.
            run_id: Id of the MLflow run that made it.
            metrics: Metrics as measured when it was tuned.
            tags: Further tags of the version, if it is made now.

        Returns:
            The version, without its aliases.
        """
        name = model_name(task)
        if self._models.find(task) is None:
            self._make_model(task)
        elif (same := self._find_digest(task, digest)) is not None:
            return same
        with self.session.errors(f"register a version of task {task!r}"):
            self.session.client.create_model_version(
                name,
                source=source,
                run_id=run_id,
                tags=version_tags(digest, metrics, tags),
                # It has no files to wait for.
                await_creation_for=0,
            )
        if (made := self._find_digest(task, digest)) is None:
            raise RegistryDown(f"MLflow at {self.session.where} lost a version of task {task!r} at once")
        return made

    def versions(self, task: str) -> list[VersionInfo]:
        """All versions of a task that can be read, newest first.

        Raises:
            RegistryError: There is no such task.
        """
        aliases = aliases_of(self._model(task))
        # MLflow's listing leaves aliases out.
        found = self._models.search_versions(f"name = '{model_name(task)}'")
        infos = [info for version in found if (info := try_to_read(version, aliases)) is not None]
        return sorted(infos, key=lambda info: -info.version)

    def version(self, task: str, version: int) -> VersionInfo:
        """One version of a task.

        Raises:
            RegistryError: There is no such task.
            NotRegisteredError: There is no such version.
        """
        self._model(task)
        try:
            with self.session.errors(f"read version {version} of task {task!r}"):
                return read_version(self.session.client.get_model_version(model_name(task), str(version)))
        except NotRegisteredError:
            known = self.listed_versions(task)
            raise NotRegisteredError(f"task {task!r} has no version {version}; it has: {known}") from None

    def champion(self, task: str) -> VersionInfo | None:
        """The version of a task that is served.

        Raises:
            RegistryError: There is no such task.
        """
        model = self._model(task)
        return self._models.info(task, model, aliases_of(model).get(CHAMPION))

    def models(self) -> list[ModelView]:
        """Aliases, tags and digests of all tasks: one call for a thousand, and one for each new version."""
        return [self._view(task, model) for task, model in self._models.all()]

    def view(self, task: str) -> ModelView | None:
        """Aliases, tags and digests of a task; None if MLflow says that there is no such model."""
        model = self._models.find(task)
        if model is None:
            return None
        self._models.remember_latest(task, model)
        return self._view(task, model)

    def tasks(self) -> list[TaskInfo]:
        """All tasks, by name; read out of MLflow's file where that is possible, which is much faster."""
        stored = read_models(self.session.tracking_uri)
        models = list(self._models.all() if stored is None else self._models.of_tasks(stored))
        self._models.remember_versions(models, _SHOWN)
        return sorted((self._task_info(task, model) for task, model in models), key=lambda info: info.task)

    def gated_versions(self) -> dict[tuple[str, str], VersionInfo]:
        """The versions that went through the gate, by task and digest: one call for a thousand.

        They are without their aliases. Of several of one digest it is the newest.
        """
        found = self._models.search_versions(f"name LIKE '{MODEL_PREFIX}%'")
        infos = [(one.name.removeprefix(MODEL_PREFIX), try_to_read(one)) for one in found]
        known = [(task, info) for task, info in infos if info is not None]
        return {
            (task, info.digest): info
            for task, info in sorted(known, key=lambda one: one[1].version)
            if info.digest is not None and GATE_TAG in info.tags
        }

    def champion_backbones(self) -> list[tuple[str, str]]:
        """Name and fingerprint of the backbone of each champion that tells them."""
        at = {(model.name, str(aliases_of(model).get(CHAMPION))) for _, model in self._models.all()}
        versions = self._models.search_versions(f"name LIKE '{MODEL_PREFIX}%'")
        tags = [read_tags(found) for found in versions if (found.name, str(found.version)) in at]
        return [(one.get(BACKBONE_TAG, "?"), one[FINGERPRINT_TAG]) for one in tags if FINGERPRINT_TAG in one]

    def referenced_digests(self) -> set[str]:
        """Digests of all artifacts that a version of any registered model names, by tag or by source.

        Raises:
            RegistryDown: There is no MLflow, or it cannot be asked. None is made.
        """
        return set().union(*(digests_of(found) for found in self._models.search_versions("")))

    def set_alias(self, task: str, alias: str, version: int) -> None:
        """Move an alias to a registered version."""
        with self.session.errors(f"set @{alias} of task {task!r}"):
            self.session.client.set_registered_model_alias(model_name(task), alias, str(version))

    def drop_alias(self, task: str, alias: str) -> None:
        """Drop an alias, if there is one."""
        with self.session.errors(f"drop @{alias} of task {task!r}"):
            self.session.client.delete_registered_model_alias(model_name(task), alias)

    def set_share(self, task: str, share: float | None) -> None:
        """Set the canary's share, or drop it."""
        client, name = self.session.client, model_name(task)
        with self.session.errors(f"set the canary's share of task {task!r}"):
            if share is None:
                client.delete_registered_model_tag(name, CANARY_SHARE_TAG)
            else:
                client.set_registered_model_tag(name, CANARY_SHARE_TAG, repr(share))

    def set_since(self, task: str, mark: str) -> None:
        """Note which version serves since when; see ``since_tag``."""
        with self.session.errors(f"note since when task {task!r} serves"):
            self.session.client.set_registered_model_tag(model_name(task), SINCE_TAG, mark)

    def tag_version(self, task: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        self._models.forget(task, version)
        with self.session.errors(f"tag version {version} of task {task!r}"):
            for key, value in tags.items():
                self.session.client.set_model_version_tag(model_name(task), str(version), key, value)

    def tags(self) -> dict[str, dict[str, str]]:
        """Tags of all tasks that their manifests gave, as they are now."""
        return {task: given_tags(read_tags(model))[0] for task, model in self._models.all()}

    def tag_task(self, task: str, tags: Mapping[str, str], read_s: float) -> None:
        """Give a task the tags of its manifest, and drop those that an earlier manifest gave it.

        What a person tagged in MLflow's page stays. Tags that were read before those that it has change
        nothing.

        Args:
            task: Name of the task.
            tags: All tags of the manifest.
            read_s: When the manifest was read, seconds since the epoch.

        Raises:
            RegistryError: There is no such task.
        """
        found, wanted = read_tags(self._model(task)), own_tags(tags)
        before, before_s = given_tags(found)
        if read_s < before_s or (not wanted and not before):
            return
        client, name = self.session.client, model_name(task)
        with self.session.errors(f"tag task {task!r}"):
            for key, value in wanted.items():
                if found.get(key) != value:
                    client.set_registered_model_tag(name, key, value)
            for key in sorted(before.keys() - wanted.keys()):
                client.delete_registered_model_tag(name, key)
            # Last: what was interrupted is written again.
            given = json.dumps({"names": sorted(wanted), "read_s": read_s})
            if found.get(TAGS_TAG) != given:
                client.set_registered_model_tag(name, TAGS_TAG, given)

    def _model(self, task: str) -> Any:
        if (model := self._models.find(task)) is not None:
            return model
        raise self.no_such_task(task)

    def no_such_task(self, task: str) -> RegistryError:
        """The error for a task without a registered model."""
        close = get_close_matches(task, [name for name, _ in self._models.all()], n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "`ship ls` lists all tasks"
        return RegistryError(f"no task {task!r} in the registry at {self.session.where}; {hint}")

    def _view(self, task: str, model: Any) -> ModelView:
        aliases = aliases_of(model)
        infos = [self._models.info(task, model, version) for version in sorted(set(aliases.values()))]
        digests = {info.version: info.digest for info in infos if info is not None}
        return ModelView(
            task=task,
            aliases={name: version for name, version in aliases.items() if version in digests},
            broken={name: version for name, version in aliases.items() if version not in digests},
            tags=read_tags(model),
            digests=digests,
            created_ms=int(model.creation_timestamp or 0),
            backbones={
                info.digest: info.backbone
                for info in infos
                if info is not None and info.digest is not None and info.backbone is not None
            },
        )

    def _make_model(self, task: str) -> None:
        name = model_name(task)
        # A registry with models has the experiment that it is known by.
        _ = self.session.experiment_id
        try:
            with self.session.errors(f"make the registered model {name!r}"):
                self.session.client.create_registered_model(name, tags={"ship.task": task})
        except RegistryDown:
            raise
        except RegistryError:
            # Made by another recorder, or by a request of ours whose answer was lost.
            if self._models.find(task) is None:
                raise

    def _find_digest(self, task: str, digest: str) -> VersionInfo | None:
        """The version of a digest; of several the first, and the others are deleted."""
        wanted = f"name = '{model_name(task)}' and tags.`{DIGEST_TAG}` = '{digest}'"
        found = self._models.search_versions(wanted)
        if not found:
            return None
        first, *others = sorted(found, key=lambda version: int(version.version))
        for other in others:
            if GATE_TAG in (other.tags or {}):
                # A version of its own to people: it was recorded before twice was told from once.
                continue
            _logger.warning(
                "version %s of task %s is version %s made twice; it is deleted",
                other.version,
                task,
                first.version,
            )
            with suppress(RegistryError), self.session.errors(f"delete version {other.version} of {task!r}"):
                self.session.client.delete_model_version(model_name(task), str(other.version))
        return read_version(first)

    def _task_info(self, task: str, model: Any) -> TaskInfo:
        aliases = aliases_of(model)
        # Of a server's listing, each version that is not the newest takes a call more.
        asked = [alias for alias in aliases if isinstance(model, StoredModel) or alias in _SHOWN]
        infos = {alias: self._models.info(task, model, aliases[alias]) for alias in asked}
        broken = {alias: aliases.pop(alias) for alias, info in infos.items() if info is None}
        return TaskInfo(
            task=task,
            champion=infos.get(CHAMPION),
            challenger=infos.get(CHALLENGER),
            previous=aliases.get(PREVIOUS),
            latest=max(map(number, model.latest_versions or ()), default=None) or None,
            updated_s=read_time_s(model.last_updated_timestamp),
            aliases=aliases,
            broken=broken,
            tags=read_tags(model),
        )

    def listed_versions(self, task: str) -> str:
        """The numbers of a task's versions, for messages."""
        versions = [info.version for info in self.versions(task)]
        listed = ", ".join(map(str, versions[:_LISTED_VERSIONS])) or "none is left"
        return f"{listed}, ..." if len(versions) > _LISTED_VERSIONS else listed
