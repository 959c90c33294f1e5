"""From a digest in the catalog to a prompt that may serve: fetched, checked, baked, and asked its probe."""

from collections.abc import Mapping
from typing import Protocol

from orchestrator.serve.residency import ServedTask
from orchestrator.store.catalog import CatalogEntry
from ship.artifact import bake_verified, unpack
from ship.backbone import Backbone
from ship.errors import ArtifactError

__all__ = ["ArtifactSource", "PromptLoader"]


class ArtifactSource(Protocol):
    """Where artifacts come from."""

    def fetch(self, digest: str) -> Mapping[str, bytes]:
        """All files of an artifact."""
        ...


class PromptLoader:
    """Loads prompts for one backbone.

    Args:
        source: Where artifacts come from.
        backbone: That serves them.
    """

    def __init__(self, source: ArtifactSource, backbone: Backbone) -> None:
        self._source = source
        self._backbone = backbone

    def __call__(self, task: str, entry: CatalogEntry) -> ServedTask:
        """Load what a catalog entry names.

        Raises:
            ArtifactError: It is damaged, or belongs to another task or another backbone.
            StoreError: It cannot be fetched.
        """
        loaded = unpack(self._source.fetch(entry.digest), entry.digest)
        if loaded.card.task != task:
            raise ArtifactError(
                f"artifact {entry.digest[:12]} is the prompt of task {loaded.card.task!r}, but version "
                f"{entry.version} of task {task!r} names it; promote another version"
            )
        return ServedTask(
            task=task,
            version=entry.version,
            digest=entry.digest,
            labels=loaded.card.labels,
            baked=bake_verified(self._backbone, loaded),
        )
