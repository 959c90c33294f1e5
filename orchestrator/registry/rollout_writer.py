"""Writes one change of a rollout at a time: by one conditional write, into the audit log, and into MLflow."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.errors import ObjectConflict, RegistryError, StoreError
from orchestrator.registry.changes import logged
from orchestrator.registry.mirror import MAX_TRIES, Loaded, Mirror, VersionFinder
from orchestrator.registry.ownership import ForeignRegistryError, check_owner
from orchestrator.registry.registry import Registry, RegistryDown, RegistryMissing
from orchestrator.store.documents.audit import Author, shortened
from orchestrator.store.documents.rollout import Change, Rollout, VersionRef
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Decide", "RolloutWriter"]

_logger = logging.getLogger(__name__)
Decide = Callable[[Rollout, VersionFinder], Rollout]


class RolloutWriter:
    """Writes changes of the rollouts of one store.

    Attributes:
        author: Author of the changes.
        mirror: Reads rollouts, and lets MLflow follow.
        log: Audit log of the store.

    Args:
        registry: Registry of versions.
        store: Store of rollouts.
        author: Author of the changes.
        clock: Current time, seconds since the epoch.
    """

    def __init__(
        self, registry: Registry, store: PromptStore, author: Author, clock: Callable[[], float] = time.time
    ) -> None:
        self._registry, self._store, self.author = registry, store, author
        self.mirror = Mirror(registry, store, author, clock)
        self.log = self.mirror.log
        self._is_owner = False

    def write(
        self,
        task: str,
        change: Change,
        decide: Decide,
        *,
        known: Mapping[int, VersionRef] | None = None,
        reason: Callable[[], str] | None = None,
        told: Mapping[str, Any] | None = None,
        must_mirror: bool = False,
    ) -> tuple[Rollout, Rollout]:
        """Write one change, log it, and let MLflow follow; returns the rollout before and after it.

        Args:
            task: Name of the task.
            change: The change.
            decide: The rollout that is wanted, given the one that is there; asked again after a conflict.
            known: Versions that have just been registered.
            reason: Reason of the change, asked after the decision.
            told: Further values for the audit log.
            must_mirror: Whether the change has failed if MLflow does not follow now.
        """
        self._check_owner()
        before: Rollout | None = None
        for _ in range(MAX_TRIES):
            loaded = self.mirror.load(task, takes_in=True, mends=True)
            if loaded.rollout.has_change(change.change_id):
                # Written by the try before, whose answer was lost.
                break
            before = loaded.rollout
            find = VersionFinder(self._registry, before, known or {})
            wanted = decide(before, find)
            if wanted == before and not loaded.is_to_be_mended:
                break
            waits = wanted.aliases == before.aliases and wanted.pending is not None
            kind = "request" if change.kind == "promote" and waits else change.kind
            named = replace(change, kind=kind, reason=shortened(reason() if reason else change.reason))
            versions = {at: find(at) for at in set(wanted.aliases.versions.values())}
            after = replace(wanted, aliases=before.aliases).changed(wanted.aliases, versions, named)
            after = logged(self.log, before, after, self.author.user, told)
            if (etag := self._write(after, loaded.etag)) is not None:
                loaded = replace(loaded, rollout=after, etag=etag)
                break
        else:
            raise RegistryError(f"task {task!r} is changed by others all the time; run the command again")
        assert before is not None
        self._follow(loaded, must_mirror=must_mirror)
        return before, loaded.rollout

    def _write(self, rollout: Rollout, if_match: str | None) -> str | None:
        """Etag of the rollout that was written; None if it has to be read and decided again."""
        try:
            return self._store.write_rollout(rollout, if_match)
        except ObjectConflict:
            return None
        except StoreError:
            stored = self._store.read_rollout(rollout.task)
            if stored is None or not stored[0].has_change(rollout.change.change_id):
                raise
            # It was written, and the answer was lost.
            return None

    def _follow(self, loaded: Loaded, *, must_mirror: bool) -> None:
        if loaded.etag is None:
            return
        try:
            self.mirror.follow(loaded)
        except (RegistryError, StoreError) as error:
            if must_mirror:
                raise
            _logger.warning(
                "task %s is changed, and the endpoint follows; MLflow's aliases do once they can be set: %s",
                loaded.rollout.task,
                error,
            )

    def _check_owner(self) -> None:
        if self._is_owner:
            return
        try:
            check_owner(self._store, self._registry)
        except (RegistryMissing, ForeignRegistryError):
            raise
        except RegistryDown as error:
            # A rollback must not wait for MLflow: the poller that brings it in line checks again.
            if self._store.read_owner() is None:
                raise
            _logger.warning("%s; the change is made in the store", error)
            return
        self._is_owner = True
