"""What `ship sync` would mend, found by the same code, on a store and an MLflow that it cannot change."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.registry.catalog_writer import CatalogChange, CatalogWriter
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.store.objects.dry import DryObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.settling import log_documents

__all__ = ["DrySync", "dry_sync"]


@dataclass(frozen=True, kw_only=True)
class DrySync:
    """What `ship sync` would do.

    Attributes:
        change: Its report on the catalog.
        moves: Tasks whose aliases in MLflow it would move.
    """

    change: CatalogChange
    moves: tuple[str, ...]


class _DryRegistry(Registry):
    """A registry whose aliases and tags stay as they are."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.session.tracking_uri, session=registry.session)
        self.moved: set[str] = set()

    def set_alias(self, task: str, alias: str, version: int) -> None:
        self.moved.add(task)

    def drop_alias(self, task: str, alias: str) -> None:
        self.moved.add(task)

    def set_share(self, task: str, share: float | None) -> None:
        self.moved.add(task)

    def set_since(self, task: str, mark: str) -> None:
        self.moved.add(task)

    def tag_version(self, task: str, version: int, tags: Mapping[str, str]) -> None:
        self.moved.add(task)


def dry_sync(store: PromptStore, registry: Registry) -> DrySync:
    """Find what `ship sync` would do. Neither the store nor MLflow is changed.

    Raises:
        ForeignRegistryError: The registry does not own the store.
        RegistryDown: MLflow cannot be read.
        StoreError: The store cannot be read.
    """
    dry, on_top = _DryRegistry(registry), PromptStore(DryObjects(store.objects))
    log_documents(on_top)
    change = CatalogWriter(dry, on_top, Rollouts(dry, on_top)).update(looks_at_rollouts=True)
    return DrySync(change=change, moves=tuple(sorted(dry.moved)))
