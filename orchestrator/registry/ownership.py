"""Which registry may say what a store serves: the one that has claimed it, and no other."""

import time
from collections.abc import Callable
from dataclasses import replace

from orchestrator.errors import ObjectConflict, RegistryError
from orchestrator.registry.registry import Registry
from orchestrator.registry.session import RegistryMissing
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.owner import Owner
from orchestrator.store.prompt_store import PromptStore

__all__ = ["ForeignRegistryError", "adopt", "check_owner", "find_owner"]


class ForeignRegistryError(RegistryError):
    """The registry is not the one that the store belongs to."""


def check_owner(store: PromptStore, registry: Registry) -> str:
    """The identity of the registry, which owns the store; it claims a store that has no owner yet.

    Raises:
        ForeignRegistryError: Another one owns the store, or this one knows nothing of what the store serves.
        RegistryMissing: There is no MLflow.
        RegistryDown: MLflow cannot be reached.
    """
    identity = _identity_of(registry)
    found = store.read_owner()
    if found is None:
        _check_knows(store, registry)
        try:
            _write_owner(store, _make_owner(registry, identity, time.time), None, Author.of_process())
            return identity
        except ObjectConflict:
            if (found := store.read_owner()) is None:
                raise
    _check_same(store, registry, found[0], identity)
    return identity


def find_owner(store: PromptStore, registry: Registry) -> Owner | None:
    """The owner of the store, which this registry is; None if no registry has claimed it. None does now.

    Raises:
        ForeignRegistryError: Another one owns the store.
        RegistryMissing: There is no MLflow.
        RegistryDown: MLflow cannot be reached.
    """
    found = store.read_owner()
    identity = _identity_of(registry)
    if found is not None:
        _check_same(store, registry, found[0], identity)
    return None if found is None else found[0]


def adopt(
    store: PromptStore,
    registry: Registry,
    clock: Callable[[], float] = time.time,
    author: Author | None = None,
) -> Owner:
    """Let the store belong to this registry from now on, whichever it belonged to.

    Args:
        store: The store.
        registry: The registry.
        clock: Current time, seconds since the epoch.
        author: Author of the change; by default the user of this process.

    Raises:
        RegistryDown: MLflow cannot be reached.
        ObjectConflict: Another command did so at the same time.
    """
    owner = _make_owner(registry, _identity_of(registry), clock)
    _write_owner(store, owner, store.read_owner(), author or Author.of_process())
    return owner


def _write_owner(store: PromptStore, owner: Owner, found: tuple[Owner, str] | None, author: Author) -> None:
    before, etag = (None, None) if found is None else found
    log = AuditLog(store)
    told = {} if before is None else {"registry": before.registry, "where": before.where}
    record = log.record("adopt", None, told, {"registry": owner.registry, "where": owner.where}, author)
    owner = replace(owner, trail=(owner if before is None else before).trail.add(record))
    log.follow(owner, store.write_owner(owner, etag), store.write_owner)


def _identity_of(registry: Registry) -> str:
    identity = registry.session.find_identity()
    if identity is None:
        raise RegistryMissing(
            f"nothing was recorded yet in MLflow at {registry.session.where}, so it is no registry of tasks; "
            "check MLFLOW_TRACKING_URI, or run `ship tune`"
        )
    return identity


def _check_knows(store: PromptStore, registry: Registry) -> None:
    """A store that was served before it had an owner is claimed by a registry that knows its tasks only."""
    catalog = store.read_catalog()
    if catalog is None or not catalog[0].entries:
        return
    entries = catalog[0].entries
    known = {model.task for model in registry.models()}
    if 2 * len(known & set(entries)) < len(entries):
        raise ForeignRegistryError(
            f"MLflow at {registry.session.where} knows {len(known & set(entries))} of the {len(entries)} "
            f"tasks that are served from {store.url}, so it may not be their registry: nothing was changed; "
            "check MLFLOW_TRACKING_URI and SHIP_STORE. If it is, `ship sync --adopt` says so"
        )


def _check_same(store: PromptStore, registry: Registry, owner: Owner, identity: str) -> None:
    if owner.registry != identity:
        raise ForeignRegistryError(
            f"MLflow at {registry.session.where} is registry {identity[:8]}, but the store {store.url} "
            f"belongs to registry {owner.registry[:8]} (MLflow at {owner.where}): nothing was changed; "
            "check MLFLOW_TRACKING_URI and SHIP_STORE. If this one takes its place, `ship sync --adopt` says "
            "so"
        )


def _make_owner(registry: Registry, identity: str, clock: Callable[[], float]) -> Owner:
    return Owner(registry=identity, where=registry.session.where, since_s=clock())
