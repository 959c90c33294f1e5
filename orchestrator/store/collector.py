"""Garbage collection of a store: finds unreferenced objects and removes them; ``garbage`` decides which.

Safe beside tunings under way: what exists is listed before what refers to it, nothing young is taken, each
find is looked at again right before it goes, and a publisher writes again what it finds in its place already,
which makes it young.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.errors import RegistryError
from orchestrator.store.garbage import Garbage, References, StoreListing, find_garbage
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Collector", "DigestSource"]


class DigestSource(Protocol):
    """The registry, as far as it matters here."""

    def referenced_digests(self) -> set[str]:
        """Digests of artifacts that any version names. Raises ``RegistryError`` if it cannot tell."""
        ...


class Collector:
    """Garbage collection of one store.

    Args:
        objects: Object store.
        registry: Registry of the MLflow that belongs to the store.
        clock: Current time, seconds since the epoch.
    """

    def __init__(
        self, objects: ObjectStore, registry: DigestSource, clock: Callable[[], float] = time.time
    ) -> None:
        self._objects = objects
        self._store = PromptStore(objects)
        self._registry = registry
        self._clock = clock

    def find(self, older_than_s: float) -> list[Garbage]:
        """List the garbage; nothing is changed.

        Args:
            older_than_s: Least age in seconds.

        Raises:
            RegistryError: MLflow cannot be asked, or is not the one that goes with this store.
            StoreError: The store cannot be read, or a publication or the catalog is damaged.
        """
        before_s = self._clock() - older_than_s
        # In this order: an artifact that gets its publication after it was listed is then seen as published.
        listing = StoreListing(
            artifacts=list(self._objects.scan("artifacts/")),
            snapshots=list(self._objects.scan("snapshots/")),
            leftovers=list(self._objects.leftovers()),
        )
        return find_garbage(listing, self._references(), before_s=before_s)

    def remove(self, garbage: Sequence[Garbage]) -> list[Garbage]:
        """Remove garbage, unless it was written again since; returns what was removed.

        Raises:
            StoreError: Something cannot be removed; what was removed before stays so.
        """
        return [found for found in garbage if self._remove(found)]

    def _references(self) -> References:
        publications = self._store.all_published()
        published = {publication.digest for publication in publications.values()}
        registered = self._registry.referenced_digests()
        if published and not published & registered:
            raise RegistryError(
                f"MLflow knows none of the {len(published)} artifacts that are published in "
                f"{self._store.url}, so it may not be the one that goes with this store; check "
                "MLFLOW_TRACKING_URI. If nothing was recorded because MLflow was down, `ship tune MANIFEST` "
                "records it"
            )
        catalog = self._store.read_catalog()
        entries = catalog[0].entries.values() if catalog else ()
        served = {digest for entry in entries for digest in entry.versions.values()}
        return References(
            digests=frozenset(published | registered | served), published=frozenset(publications)
        )

    def _remove(self, found: Garbage) -> bool:
        if found.kind == "temporary":
            for key in found.keys:
                self._objects.drop_leftover(key)
            return True
        prefix = f"artifacts/{found.name}/" if found.kind == "artifact" else f"snapshots/{found.name}"
        if any(one.modified_s > found.modified_s for one in self._objects.scan(prefix)):
            return False
        for key in found.keys:
            self._objects.delete(key)
        return True
