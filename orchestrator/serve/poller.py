"""Brings the registry's champions, and what is tried beside them, into the catalog, which engines follow.

One poller for all engines: however many replicas there are, MLflow is asked once each two seconds, and
serving never depends on it.
"""

import itertools

from orchestrator.errors import ObjectConflict, RegistryError, StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.serve.process_log import open_process_log
from orchestrator.serve.watch import Watch
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore

__all__ = ["CatalogPoller"]

POLL_S = 2.0
# Looks at the registry from one look at the rollouts to the next.
_LOOKS_PER_SCAN = 15


class CatalogPoller:
    """The deployment's class; ``deployments`` wraps it. Exactly one replica.

    Args:
        tracking_uri: MLflow's.
        store_url: URL of the store of prompts.
        log: File for what goes wrong; None leaves it to Ray.
        poll_s: Between two looks.
    """

    def __init__(
        self, tracking_uri: str, store_url: str, log: str | None = None, poll_s: float = POLL_S
    ) -> None:
        if log is not None:
            open_process_log(log)
        self._writer = CatalogWriter(Registry(tracking_uri), PromptStore(open_objects(store_url)))
        self._looks = itertools.count()
        self._watch = Watch("registry", self._look, poll_s=poll_s, meanwhile="the catalog stays as it is")
        self._watch.start()

    def problem(self) -> str | None:
        """Why the catalog may be behind the registry, if it may."""
        return self._watch.problem

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises."""
        if not self._watch.is_alive:
            raise RuntimeError("the thread that polls the registry is dead")

    def _look(self) -> str | None:
        # Not at the first one, which is to be quick.
        looks_at_rollouts = next(self._looks) % _LOOKS_PER_SCAN == 1
        try:
            return self._writer.update(looks_at_rollouts=looks_at_rollouts).describe()
        except ObjectConflict:
            # Another poller wrote it. The next look compares with what that one wrote.
            return None
        except (RegistryError, StoreError) as error:
            return str(error)
