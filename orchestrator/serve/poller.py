"""Brings the registry's champions, and what is tried beside them, into the catalog, which engines follow.

One poller for all engines: however many replicas there are, MLflow is asked once each two seconds, and
serving never depends on it.
"""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.errors import ObjectConflict, RegistryError, StoreError
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollout import make_entry
from orchestrator.registry.versions import ModelView
from orchestrator.serve.process_log import open_process_log
from orchestrator.serve.watch import LOOK_LIMIT_S, Watch
from orchestrator.store.catalog import Catalog
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore

__all__ = ["CatalogPoller", "CatalogStore", "ModelSource", "reconcile"]

POLL_S = 2.0


class ModelSource(Protocol):
    """Where versions are promoted."""

    def models(self) -> Sequence[ModelView]:
        """Aliases, tags and digests of all tasks."""
        ...


class CatalogStore(Protocol):
    """Where the catalog is kept."""

    def read_catalog(self) -> tuple[Catalog, str] | None:
        """The catalog and its etag."""
        ...

    def write_catalog(self, catalog: Catalog, if_match: str | None) -> str:
        """Write the catalog in place of the one with that etag."""
        ...


def reconcile(source: ModelSource, store: CatalogStore) -> bool:
    """Make the catalog name what the registry does; whether it had to be changed.

    Raises:
        RegistryError: The registry cannot be read; the catalog stays as it is.
        StoreError: The catalog cannot be read or written, or another poller was faster (``ObjectConflict``).
    """
    models = source.models()
    made = {model.task: make_entry(model.aliases, model.tags, model.digests) for model in models}
    entries = {task: entry for task, entry in made.items() if entry is not None}
    found = store.read_catalog()
    if found is not None and dict(found[0].entries) == entries:
        return False
    store.write_catalog(Catalog(entries=entries), if_match=None if found is None else found[1])
    return True


class CatalogPoller:
    """The deployment's class; ``deployments`` wraps it. Exactly one replica.

    Args:
        tracking_uri: MLflow's.
        store_url: URL of the store of prompts.
        log: File for what goes wrong; None leaves it to Ray.
        poll_s: Between two looks.
        limit_s: A look that takes longer hangs.
    """

    def __init__(
        self,
        tracking_uri: str,
        store_url: str,
        log: str | None = None,
        poll_s: float = POLL_S,
        limit_s: float = LOOK_LIMIT_S,
    ) -> None:
        if log is not None:
            open_process_log(log)
        self._registry = Registry(tracking_uri)
        self._store = PromptStore(open_objects(store_url))
        self._watch = Watch(
            "registry", self._look, poll_s=poll_s, meanwhile="the catalog stays as it is", limit_s=limit_s
        )
        self._watch.start()

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
        try:
            reconcile(self._registry, self._store)
        except ObjectConflict:
            # Another poller wrote it. The next look compares with what that one wrote.
            return None
        except (RegistryError, StoreError) as error:
            return str(error)
        return None
