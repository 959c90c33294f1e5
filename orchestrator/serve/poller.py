"""Brings the registry's champions, and what is tried beside them, into the catalog, which engines follow.

One poller for all engines: however many replicas there are, MLflow is asked once each two seconds, and
serving never depends on it.
"""

import asyncio
import itertools
from concurrent.futures import Future

from orchestrator.errors import ObjectConflict, OrchestratorError, RegistryError, StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.serve.engine_api import FirstLook
from orchestrator.serve.first_catalog import publish_first_catalog
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.process_log import open_process_log
from orchestrator.serve.residency.kept_catalog import open_kept_catalog
from orchestrator.serve.watch import LOOK_LIMIT_S, Watch
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore

__all__ = ["CatalogPoller"]

POLL_S = 2.0
# Looks at the registry from one look at the rollouts to the next.
_LOOKS_PER_SCAN = 15


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
        self._store = PromptStore(open_objects(store_url))
        self._writer = CatalogWriter(Registry(tracking_uri), self._store)
        self._kept = None if options is None else open_kept_catalog(store_url, options)
        self._first_look: Future[FirstLook] = Future()
        self._looks = itertools.count()
        self._watch = Watch(
            "registry", self._look, poll_s=poll_s, meanwhile="the catalog stays as it is", limit_s=limit_s
        )
        self._watch.start()

    async def first_look(self) -> FirstLook:
        """What the first look at the registry has led to; waits for its end."""
        return await asyncio.wrap_future(self._first_look)

    def problem(self) -> str | None:
        """Why the catalog may be behind the registry, if it may."""
        return self._watch.problem

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises: one whose look hangs, too."""
        self._watch.check()

    def look_age_s(self) -> float:
        """Seconds since the catalog was last compared with the registry."""
        return self._watch.look_age_s

    def _look(self) -> str | None:
        if not self._first_look.done():
            found = self._look_first()
            self._first_look.set_result(found)
            return found.refusal or found.warning
        # Not at the first ones, which are to be quick.
        looks_at_rollouts = next(self._looks) % _LOOKS_PER_SCAN == 1
        try:
            return self._writer.update(looks_at_rollouts=looks_at_rollouts).describe()
        except ObjectConflict:
            # Another poller wrote it. The next look compares with what that one wrote.
            return None
        except (RegistryError, StoreError) as error:
            return str(error)

    def _look_first(self) -> FirstLook:
        try:
            return publish_first_catalog(self._writer, self._store, self._kept)
        except OrchestratorError as error:
            return FirstLook(refusal=str(error))
