"""First catalog of an endpoint: the registry's champions of today, or else the last ones that are known."""

from contextlib import suppress

from orchestrator.errors import ObjectConflict, RegistryError, ServeError, StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.ownership import ForeignRegistryError
from orchestrator.registry.registry import RegistryMissing
from orchestrator.serve.engine_api import FirstLook
from orchestrator.serve.residency.kept_catalog import KeptCatalog
from orchestrator.store.documents.catalog import Catalog
from orchestrator.store.prompt_store import PromptStore

__all__ = ["publish_first_catalog"]


def publish_first_catalog(
    writer: CatalogWriter, store: PromptStore, kept: KeptCatalog | None = None
) -> FirstLook:
    """Bring the catalog up to date, so that the endpoint starts with today's champions, not last week's.

    Args:
        writer: Writer of the store's catalog. Its registry is not made, if there is none.
        store: The store.
        kept: The last catalog of it on this machine.

    Raises:
        ServeError: MLflow cannot be read, and there is no earlier catalog to serve; or it is not the one that
            the store belongs to.
        StoreError: The store cannot be reached, and this machine has kept no catalog of it.
    """
    try:
        return _publish(writer, store)
    except StoreError as error:
        if kept is None or kept.read() is None:
            raise
        return FirstLook(
            warning=f"{error}; serving the last catalog that this machine has kept until it is back"
        )


def _publish(writer: CatalogWriter, store: PromptStore) -> FirstLook:
    try:
        change = writer.update()
    except ObjectConflict:
        # Another endpoint on the same store wrote it this very moment.
        return FirstLook(is_written=True)
    except ForeignRegistryError as error:
        raise ServeError(str(error)) from error
    except RegistryError as error:
        if store.read_catalog() is not None:
            return FirstLook(warning=f"{error}; serving the champions of the last catalog until it is back")
        if isinstance(error, RegistryMissing) and store.read_owner() is None:
            # Nothing was ever tuned for this store. Another endpoint may write the same at this moment.
            with suppress(ObjectConflict):
                store.write_catalog(Catalog(entries={}), None)
            return FirstLook(is_written=True)
        raise ServeError(f"{error}; there is no earlier catalog in {store.url} to serve either") from error
    return FirstLook(warning=change.describe(), is_written=change.is_written)
