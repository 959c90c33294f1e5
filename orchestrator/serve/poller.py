"""Brings the registry's champions, and what is tried beside them, into the catalog, which engines follow.

One poller for all engines: however many replicas there are, MLflow is asked once each two seconds, and
serving never depends on it.
"""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from orchestrator.cluster.loopback import keep_replica_on_loopback
from orchestrator.errors import ObjectConflict, OrchestratorError, RegistryError, StoreError
from orchestrator.registry.catalog_writer import CatalogChange, CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.serve.drift.sighting import Drift, Sighting
from orchestrator.serve.drift.watcher import DriftWatcher
from orchestrator.serve.engine_api import FirstLook
from orchestrator.serve.first_catalog import publish_first_catalog
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.process_log import open_process_log
from orchestrator.serve.residency.kept_catalog import open_kept_catalog
from orchestrator.serve.watch import LOOK_LIMIT_S, Watch
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore

__all__ = ["CatalogPoller", "Look"]

_log = logging.getLogger(__name__)
POLL_S = 2.0
# Between two looks at the answers that ingresses have handed on.
DRIFT_POLL_S = 5.0
# Looks at the registry from one look at the rollouts to the next.
_LOOKS_PER_SCAN = 15


class Updates(Protocol):
    """Writer of the catalog."""

    def update(self, *, looks_at_rollouts: bool) -> CatalogChange:
        """Look at the registry, and write the catalog if it has to change."""
        ...


class CatalogPoller:
    """The deployment's class; ``deployments`` names it. Exactly one replica.

    Args:
        tracking_uri: MLflow's.
        store_url: URL of the store of prompts.
        log: File for what goes wrong; None leaves it to Ray.
        poll_s: Between two looks.
        limit_s: A look that takes longer hangs.
        options: Where this machine keeps the last catalog.
    """

    def __init__(
        self,
        tracking_uri: str,
        store_url: str,
        log: str | None = None,
        poll_s: float = POLL_S,
        limit_s: float = LOOK_LIMIT_S,
        options: EngineOptions | None = None,
    ) -> None:
        if log is not None:
            open_process_log(log)
        keep_replica_on_loopback()
        self._store = PromptStore(open_objects(store_url))
        self._writer = CatalogWriter(Registry(tracking_uri), self._store)
        self._kept = None if options is None else open_kept_catalog(store_url, options)
        self._first_look: Future[FirstLook] = Future()
        self._look = Look(self._writer)
        self._watch = Watch(
            "registry",
            self._look_once,
            poll_s=poll_s,
            meanwhile="the catalog stays as it is",
            limit_s=limit_s,
        )
        self._watch.start()
        self._drift = DriftWatcher(PromptStore(open_objects(store_url)))
        self._drift_watch = Watch(
            "drift",
            self._drift.step,
            poll_s=DRIFT_POLL_S,
            meanwhile="alarms of drift come late",
            limit_s=limit_s,
        )
        self._drift_watch.start()

    async def first_look(self) -> FirstLook:
        """What the first look at the registry has led to; waits for its end."""
        return await asyncio.wrap_future(self._first_look)

    def problem(self) -> str | None:
        """Why the catalog may be behind the registry, if it may, as a whole or for some tasks."""
        return self._watch.problem or self._look.problem

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises: one whose look hangs, too."""
        self._watch.check()
        self._drift_watch.check(may_hang=True)

    def look_age_s(self) -> float:
        """Seconds since the catalog was last compared with the registry."""
        return self._watch.look_age_s

    def standing(self) -> tuple[float, int]:
        """The same, and the number of tasks of which something is broken."""
        return self.look_age_s(), self._look.num_broken

    def see_answers(self, sightings: Sequence[Sighting]) -> None:
        """Take in what an ingress has answered, for the watch for drift."""
        self._drift.see(sightings)

    def drift(self) -> tuple[tuple[Drift, ...], int, int]:
        """See ``DriftWatcher.describe``."""
        return self._drift.describe()

    def _look_once(self) -> str | None:
        if self._first_look.done():
            return self._look()
        found = self._look_first()
        self._first_look.set_result(found)
        return found.refusal or found.warning

    def _look_first(self) -> FirstLook:
        try:
            return publish_first_catalog(self._writer, self._store, self._kept)
        except OrchestratorError as error:
            return FirstLook(refusal=str(error))


class Look:
    """One look at the registry after another, and what it found to be broken of single tasks.

    Args:
        writer: Writer of the catalog.

    Attributes:
        num_broken: Tasks of which something was broken at the last look that succeeded.
        problem: What it is; None if nothing is.
    """

    def __init__(self, writer: Updates) -> None:
        self._writer = writer
        self._looks = itertools.count()
        self.num_broken = 0
        self.problem: str | None = None

    def __call__(self) -> str | None:
        """Look, and bring the catalog in line; returns why that failed as a whole, if it did."""
        # Not at the first ones, which are to be quick.
        looks_at_rollouts = next(self._looks) % _LOOKS_PER_SCAN == 1
        try:
            change = self._writer.update(looks_at_rollouts=looks_at_rollouts)
        except ObjectConflict:
            # Another poller wrote it. The next look compares with what that one wrote.
            return None
        except (RegistryError, StoreError) as error:
            return str(error)
        self._note(change)
        return None

    def _note(self, change: CatalogChange) -> None:
        """Log once what is broken of some tasks: the look has succeeded for all others."""
        self.num_broken = len({*change.problems, *change.missing})
        problem = change.describe()
        if problem is not None and problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem
