"""Follows the catalog: one small object, looked at each second, acted on when its ETag changes.

It is taken over at once and loaded beside the looks, so that many new prompts hold up neither what is
promoted next nor requests for one of them. The last one is kept on disk, for a start while the store is down.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Protocol

from orchestrator.errors import StoreError
from orchestrator.serve.residency.kept_catalog import KeptCatalog
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.watch import Watch
from orchestrator.store.documents.catalog import BrokenEntry, Catalog

__all__ = ["CatalogFollower", "CatalogSource"]

_log = logging.getLogger(__name__)


class CatalogSource(Protocol):
    """Where the catalog is."""

    def read_catalog(self) -> tuple[Catalog, str] | None:
        """The catalog and its etag; None before the first one is written."""
        ...


class CatalogFollower(Watch):
    """Keeps a residency in line with the catalog, from a thread of its own.

    A store that is down changes nothing: what is resident goes on. One that is down from the start leaves
    the catalog that was kept, if there is one.

    Args:
        source: Where the catalog is.
        residency: To keep in line.
        kept: Where the last one is; None keeps none.
        poll_s: Seconds between two looks.
    """

    def __init__(
        self,
        source: CatalogSource,
        residency: Residency,
        kept: KeptCatalog | None = None,
        *,
        poll_s: float = 1.0,
    ) -> None:
        super().__init__("catalog", self._look, poll_s=poll_s, meanwhile="what is loaded is served")
        self._source = source
        self._residency = residency
        self._kept = kept
        self._etag: str | None = None
        self._catalog: Catalog | None = None
        self._synced = threading.Event()

    @property
    def is_synced(self) -> bool:
        """Whether a catalog was taken over once."""
        return self._synced.is_set()

    def wait_synced(self, timeout_s: float) -> bool:
        """Wait until a catalog was taken over once; False if that took too long."""
        return self._synced.wait(timeout_s)

    def _look(self) -> str | None:
        try:
            found = self._source.read_catalog()
        except StoreError as error:
            if not self.is_synced:
                self._take_over_kept()
            return f"the catalog cannot be read: {error}"
        if found is None:
            return "there is no catalog in the store yet"
        self._follow(*found)
        self._synced.set()
        return None

    def _follow(self, catalog: Catalog, etag: str) -> None:
        if etag == self._etag:
            self._residency.refresh()
            if self._kept is not None:
                self._kept.confirm()
            return
        if catalog.broken:
            _log.warning("%s", describe_broken(catalog.broken))
        catalog = self._catalog = catalog.mended(self._catalog)
        self._residency.apply(catalog)
        self._etag = etag
        if self._kept is not None:
            self._kept.keep(catalog)

    def _take_over_kept(self) -> None:
        found = None if self._kept is None else self._kept.read()
        if found is not None:
            catalog, age_s = found
            self._catalog = catalog
            self._residency.apply(catalog, age_s=age_s)
            self._synced.set()


def describe_broken(broken: Mapping[str, BrokenEntry]) -> str:
    """Entries of the catalog that cannot be read, in words."""
    task, entry = next(iter(broken.items()))
    such_as = f"{ascii(task)[:80]}: {entry.problem}"
    return f"{len(broken)} entries of the catalog cannot be read, whose tasks stay as they were: {such_as}"
