"""Follows the catalog: one small object, looked at each second, acted on when its ETag changes.

The first catalog is loaded whole before anything is answered. After that it is taken over at once and loaded
beside the looks, so that many new prompts don't hold up what is promoted next.
"""

import logging
import threading
from typing import Protocol

from orchestrator.errors import StoreError
from orchestrator.serve.residency import Residency
from orchestrator.store.catalog import Catalog

__all__ = ["CatalogFollower", "CatalogSource"]

_log = logging.getLogger(__name__)


class CatalogSource(Protocol):
    """Where the catalog is."""

    def read_catalog(self) -> tuple[Catalog, str] | None:
        """The catalog and its etag; None before the first one is written."""
        ...


class CatalogFollower:
    """Keeps a residency in line with the catalog, from a thread of its own.

    A store that is down changes nothing: what is resident goes on.

    Args:
        source: Where the catalog is.
        residency: To keep in line.
        poll_s: Between two looks.
    """

    def __init__(
        self,
        source: CatalogSource,
        residency: Residency,
        *,
        poll_s: float = 1.0,
    ) -> None:
        self._source = source
        self._residency = residency
        self._poll_s = poll_s
        self._etag: str | None = None
        self._stopped = threading.Event()
        self._synced = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ship-catalog", daemon=True)
        self.problem: str | None = "no catalog was looked for yet"

    @property
    def is_synced(self) -> bool:
        """Whether a catalog was gone through once."""
        return self._synced.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start following."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; a load under way is not waited for."""
        self._stopped.set()

    def wait_synced(self, timeout_s: float) -> bool:
        """Wait until a catalog was gone through once; False if that took too long."""
        return self._synced.wait(timeout_s)

    def step(self) -> None:
        """One look at the catalog."""
        try:
            found = self._source.read_catalog()
        except StoreError as error:
            self._note(f"the catalog cannot be read: {error}")
            return
        if found is None:
            self._note("there is no catalog in the store yet")
            return
        self._note(None)
        catalog, etag = found
        if etag == self._etag:
            self._residency.refresh()
        else:
            self._residency.apply(catalog, wait=not self.is_synced)
            self._etag = etag
        self._synced.set()

    def _note(self, problem: str | None) -> None:
        """Keep what is wrong, and log it when it changes, not each second."""
        if problem != self.problem:
            if problem is not None:
                _log.warning("%s; serving what is loaded", problem)
            self.problem = problem

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.step()
            # A boundary: this thread must outlive whatever a store's driver raises, or no promotion would
            # ever arrive again.
            except Exception as error:
                self._note(f"following the catalog failed: {type(error).__name__}: {error}")
            self._stopped.wait(self._poll_s)
