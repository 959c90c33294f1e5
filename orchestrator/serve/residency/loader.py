"""From a digest in the catalog to a prompt that may serve: fetched, checked, inserted, asked its probe."""

from collections.abc import Callable, Mapping
from typing import Protocol

from orchestrator.serve.residency.served import PromptRef, ServedVersion
from ship.artifact.files import insert_verified, load_files
from ship.errors import ArtifactError
from ship.runtime.runtime import Runtime

__all__ = ["ArtifactSource", "PromptLoader"]


class ArtifactSource(Protocol):
    """Where artifacts come from."""

    def fetch(self, digest: str) -> Mapping[str, bytes]:
        """All files of an artifact."""
        ...


class PromptLoader:
    """Loads prompts into one runtime.

    Args:
        source: Where artifacts come from.
        runtime: Runtime that serves them.
    """

    def __init__(self, source: ArtifactSource, runtime: Runtime) -> None:
        self._source = source
        self._runtime = runtime

    def __call__(self, ref: PromptRef, make_room: Callable[[int], bool]) -> ServedVersion:
        """Load a version.

        Args:
            ref: The version.
            make_room: See ``ship.artifact.files.insert_verified``.

        Raises:
            ArtifactError: It is damaged, or belongs to another task or another backbone.
            StoreError: It cannot be fetched.
            PromptTooLargeError: It is larger than all the room there is.
            SlotsFullError: There is no room for it.
        """
        loaded = load_files(self._source.fetch(ref.digest), ref.digest)
        if loaded.card.task != ref.task:
            raise ArtifactError(
                f"artifact {ref.digest[:12]} is the prompt of task {loaded.card.task!r}, but version "
                f"{ref.version} of task {ref.task!r} names it; promote another version"
            )
        return ServedVersion(
            task=ref.task,
            version=ref.version,
            digest=ref.digest,
            labels=loaded.card.labels,
            slot=insert_verified(self._runtime, loaded, make_room),
            view=loaded.card.view,
        )
