"""Follows the catalog: one small object, looked at each second, acted on when its ETag changes.

The first catalog is loaded whole before anything is answered. After that it is taken over at once and loaded
beside the looks, so that many new prompts don't hold up what is promoted next.
"""

import threading
from typing import Protocol

from orchestrator.errors import StoreError
from orchestrator.serve.residency import Residency
from orchestrator.serve.watch import Watch
from orchestrator.store.catalog import Catalog

__all__ = ["CatalogFollower", "CatalogSource"]


class CatalogSource(Protocol):
    """Where the catalog is."""

    def read_catalog(self) -> tuple[Catalog, str] | None:
        """The catalog and its etag; None before the first one is written."""
        ...


class CatalogFollower(Watch):
    """Keeps a residency in line with the catalog, from a thread of its own.

    A store that is down changes nothing: what is resident goes on.

    Args:
        source: Where the catalog is.
        residency: To keep in line.
        poll_s: Between two looks.
    """

    def __init__(self, source: CatalogSource, residency: Residency, *, poll_s: float = 1.0) -> None:
        super().__init__("catalog", self._look, poll_s=poll_s, meanwhile="what is loaded is served")
        self._source = source
        self._residency = residency
        self._etag: str | None = None
        self._synced = threading.Event()

    @property
    def is_synced(self) -> bool:
        """Whether a catalog was gone through once."""
        return self._synced.is_set()

    def wait_synced(self, timeout_s: float) -> bool:
        """Wait until a catalog was gone through once; False if that took too long."""
        return self._synced.wait(timeout_s)

    def _look(self) -> str | None:
        try:
            found = self._source.read_catalog()
        except StoreError as error:
            return f"the catalog cannot be read: {error}"
        if found is None:
            return "there is no catalog in the store yet"
        catalog, etag = found
        if etag == self._etag:
            self._residency.refresh()
        else:
            self._residency.apply(catalog, wait=not self.is_synced)
            self._etag = etag
        self._synced.set()
        return None
