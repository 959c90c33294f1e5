"""The last catalog on this machine's own disk: an engine that starts while the store is down needs no store.

What is read is checked as if it came from the store, and the artifacts that it names are. What goes wrong
here costs that and nothing else.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.bounded_folder import BoundedFolder
from orchestrator.errors import StoreError
from orchestrator.serve.options import EngineOptions
from orchestrator.store.documents.catalog import MAX_CATALOG_BYTES, Catalog

__all__ = ["KeptCatalog", "open_kept_catalog"]

FOLDER = "catalogs"
# Of all stores that this machine follows.
_LIMIT_BYTES = 4 * MAX_CATALOG_BYTES
_log = logging.getLogger(__name__)


class KeptCatalog:
    """A file of a folder that threads and processes may share. It is as old as its time stamp says.

    Args:
        folder: Folder of this user alone.
        store_url: URL of the store whose catalog it is.
        clock: Clock, in seconds since the epoch.
        max_bytes: A larger file is not read.
    """

    def __init__(
        self,
        folder: Path,
        store_url: str,
        clock: Callable[[], float] = time.time,
        max_bytes: int = MAX_CATALOG_BYTES,
    ) -> None:
        self._files = BoundedFolder(folder, _LIMIT_BYTES)
        self._name = f"{hashlib.sha256(store_url.encode(errors='surrogatepass')).hexdigest()[:32]}.json"
        self._clock = clock
        self._max_bytes = max_bytes
        self._warned = threading.Event()

    def keep(self, catalog: Catalog) -> None:
        """Keep a catalog, in place of the one before."""
        content = catalog.to_bytes()
        try:
            self._files.keep(self._name, len(content), lambda path: path.write_bytes(content))
        except OSError as error:
            if not self._warned.is_set():
                self._warned.set()
                _log.warning(
                    "the catalog is not kept on disk: %s; serving goes on without (SHIP_CACHE)", error
                )

    def confirm(self) -> None:
        """The catalog is still current."""
        self._files.note_use(self._name)

    def read(self) -> tuple[Catalog, float] | None:
        """The catalog, and how long ago it was seen to be current, in seconds; None if there is none."""
        path = self._files.path(self._name)
        try:
            with path.open("rb") as file:
                content = file.read(self._max_bytes + 1)
            if len(content) > self._max_bytes:
                raise StoreError(f"catalog: more than {self._max_bytes} bytes")
            return Catalog.from_bytes(content), max(0.0, self._clock() - path.stat().st_mtime)
        except FileNotFoundError:
            return None
        except (OSError, StoreError) as error:
            _log.warning("%s cannot be served: %s", path, error)
            return None


def open_kept_catalog(store_url: str, options: EngineOptions) -> KeptCatalog | None:
    """The catalog of a store beside the cache of its prompts, if the options name one."""
    if options.cache is None or not options.cache_bytes:
        return None
    return KeptCatalog(Path(options.cache).expanduser() / FOLDER, store_url)
