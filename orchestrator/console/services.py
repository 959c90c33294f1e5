"""What the pages of the console read and change: store, registry, audit log and endpoint, opened lazily.

The console holds no state of its own. What it keeps for a moment, so that a reload asks nothing anew, says
for how long.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.client import Client
from orchestrator.console.kept import Bounded, Kept
from orchestrator.console.tuning import start_tuning
from orchestrator.registry.registry import Registry, RegistryMissing
from orchestrator.registry.versions import TaskInfo, VersionInfo
from orchestrator.settings import Settings
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.tokens import Tokens
from orchestrator.store.prompt_store import PromptStore

if TYPE_CHECKING:
    from orchestrator.console.endpoint_state import EndpointState
    from orchestrator.console.looking import Look
    from orchestrator.registry.requests import Requests
    from orchestrator.registry.rollouts import Rollouts
    from orchestrator.registry.thresholds import Thresholds
    from orchestrator.store.documents.catalog import Catalog
    from orchestrator.store.documents.drift import DriftStates
    from orchestrator.store.documents.rollout import Rollout

__all__ = ["Services"]

# Ages at which a kept value is read anew.
TASKS_AGE_S = TOKENS_AGE_S = CATALOG_AGE_S = ENDPOINT_AGE_S = DRIFT_AGE_S = 2.0
# Tasks whose versions are kept: a gallery asks for those of one task with every picture.
NUM_VERSIONS = 64
# Promotions that wait take a read for each task that needs an approval.
PENDING_AGE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Services:
    """What pages read and change. Threads may share it.

    Attributes:
        settings: Where everything is.
        store: Store of prompts, rollouts, tokens.
        registry: Names, versions and aliases.
        audit: Audit log.
        endpoint: Client of the endpoint; None if the console was given none.
        computes: Whether this process may run prompts on single pictures.
        backbone: Place of the backbone for that, if it is not where the artifacts say.
        manifest: Manifest with whose settings a person may tune a task anew; None for none.
        start_tuning: Starts `ship tune` of a manifest.
        clock: Current time, seconds since the epoch.
        monotonic: Monotonic seconds, by which kept values age.
    """

    settings: Settings
    store: PromptStore
    registry: Registry
    audit: AuditLog
    endpoint: Client | None = None
    computes: bool = False
    backbone: str | None = None
    manifest: str | None = None
    start_tuning: Callable[[Settings, Path], None] = start_tuning
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _tasks: Kept[list[TaskInfo]] = field(init=False, repr=False, compare=False)
    _tokens: Kept[Tokens] = field(init=False, repr=False, compare=False)
    _catalog: "Kept[Catalog | None]" = field(init=False, repr=False, compare=False)
    _endpoint: "Kept[EndpointState]" = field(init=False, repr=False, compare=False)
    _pending: "Kept[dict[str, Rollout]]" = field(init=False, repr=False, compare=False)
    _versions: Bounded[Kept[list[VersionInfo]]] = field(init=False, repr=False, compare=False)
    _drift: "Kept[DriftStates]" = field(init=False, repr=False, compare=False)
    _look: "Kept[Look]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tasks", Kept(TASKS_AGE_S, self.monotonic))
        object.__setattr__(self, "_tokens", Kept(TOKENS_AGE_S, self.monotonic))
        object.__setattr__(self, "_catalog", Kept(CATALOG_AGE_S, self.monotonic))
        object.__setattr__(self, "_endpoint", Kept(ENDPOINT_AGE_S, self.monotonic))
        object.__setattr__(self, "_pending", Kept(PENDING_AGE_S, self.monotonic))
        object.__setattr__(self, "_versions", Bounded(NUM_VERSIONS))
        object.__setattr__(self, "_drift", Kept(DRIFT_AGE_S, self.monotonic))
        object.__setattr__(self, "_look", Kept(math.inf, self.monotonic))

    @classmethod
    def open(
        cls,
        settings: Settings,
        endpoint: Client | None = None,
        *,
        computes: bool = False,
        backbone: str | None = None,
        manifest: str | None = None,
    ) -> Self:
        """Services of a home. Nothing is asked before the first page; MLflow and torch are not loaded.

        Args:
            settings: Where everything is.
            endpoint: Client of the endpoint, if there is one.
            computes: Whether this process may run prompts on single pictures.
            backbone: Place of the backbone for that, if it is not where the artifacts say.
            manifest: Manifest with whose settings a person may tune a task anew; None for none.
        """
        from orchestrator.store.objects.open import open_objects

        store = PromptStore(open_objects(settings.store))
        registry = Registry(settings.tracking_uri, settings.artifact_location)
        return cls(
            settings=settings,
            store=store,
            registry=registry,
            audit=AuditLog(store),
            endpoint=endpoint,
            computes=computes,
            backbone=backbone,
            manifest=manifest,
        )

    @property
    def home(self) -> Path:
        """Folder of everything local: of runs, too."""
        return self.settings.home

    def tasks(self) -> list[TaskInfo]:
        """All tasks of the registry by name, at most ``TASKS_AGE_S`` old; one listing for all of them.

        Raises:
            RegistryError: MLflow cannot be reached.
        """
        return self._tasks.get(self._read_tasks)

    def versions(self, task: str) -> list[VersionInfo]:
        """The versions of a task, newest first, at most ``TASKS_AGE_S`` old.

        Raises:
            NotRegisteredError: There is no such task.
            RegistryError: MLflow cannot be reached.
        """
        kept = self._versions.get(task, lambda: Kept(TASKS_AGE_S, self.monotonic))
        return kept.get(lambda: self.registry.versions(task))

    def tokens(self) -> Tokens:
        """All tokens, at most ``TOKENS_AGE_S`` old.

        Raises:
            StoreError: They cannot be read.
        """
        return self._tokens.get(self._read_tokens)

    def catalog(self) -> "Catalog | None":
        """The catalog, at most ``CATALOG_AGE_S`` old; None if the store has none.

        Raises:
            StoreError: It cannot be read.
        """
        return self._catalog.get(self._read_catalog)

    def drift(self) -> "DriftStates":
        """Drift of the watched tasks, at most ``DRIFT_AGE_S`` old.

        Raises:
            StoreError: It cannot be read.
        """
        from orchestrator.store.drift import read_drift

        return self._drift.get(lambda: read_drift(self.store.objects)[0])

    def endpoint_state(self) -> "EndpointState | None":
        """What the endpoint says of itself, at most ``ENDPOINT_AGE_S`` old; None without an endpoint."""
        from orchestrator.console.endpoint_state import ask_endpoint

        endpoint = self.endpoint
        return None if endpoint is None else self._endpoint.get(lambda: ask_endpoint(endpoint))

    def pending(self) -> "dict[str, Rollout]":
        """Rollouts of all tasks with a promotion that waits, at most ``PENDING_AGE_S`` old.

        Raises:
            StoreError: They cannot be read.
        """
        return self._pending.get(self._read_pending)

    def rollouts(self, author: Author) -> "Rollouts":
        """Changes of what serves, by an author; see ``access.Person.author``."""
        from orchestrator.registry.rollouts import Rollouts

        self.forget()
        return Rollouts(self.registry, self.store, author)

    def requests(self, author: Author) -> "Requests":
        """Promotions that wait for an approval."""
        from orchestrator.registry.requests import Requests

        self.forget()
        return Requests(self.registry, self.store, author)

    def forget(self) -> None:
        """Read what decisions change anew, the next time."""
        for kept in (self._tasks, self._catalog, self._pending, self._versions):
            kept.forget()

    def thresholds(self, author: Author) -> "Thresholds":
        """Decision rules. Loads torch the first time."""
        from orchestrator.registry.thresholds import Thresholds

        return Thresholds(self.registry, self.store, self.rollouts(author))

    def look(self) -> "Look":
        """Held-out answers and single pictures. Loads torch the first time."""
        return self._look.get(self._make_look)

    def _make_look(self) -> "Look":
        from orchestrator.console.looking import Look

        return Look(
            self.registry,
            self.store,
            endpoint=self.endpoint,
            computes=self.computes,
            backbone=self.backbone,
            max_pixels=self.settings.max_pixels,
        )

    def _read_tasks(self) -> list[TaskInfo]:
        try:
            return self.registry.tasks()
        except RegistryMissing:
            # Before the first task.
            return []

    def _read_catalog(self) -> "Catalog | None":
        found = self.store.read_catalog()
        return None if found is None else found[0]

    def _read_pending(self) -> "dict[str, Rollout]":
        from orchestrator.registry.requests import Requests
        from orchestrator.store.approvals import read_rules

        # Without a rule nothing waits, and nothing more is read.
        if read_rules(self.store.objects).are_empty:
            return {}
        return Requests(self.registry, self.store).pending([info.task for info in self.tasks()])

    def _read_tokens(self) -> Tokens:
        found = self.store.read_tokens()
        return Tokens() if found is None else found[0]
