"""From a digest in the catalog to a prompt that may serve: fetched, checked, inserted, asked its probe."""

from collections.abc import Callable, Mapping
from typing import Protocol

from orchestrator.errors import StoreError
from orchestrator.serve.residency.loads import OtherBackboneError
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.rule import StoredRule
from ship.artifact.files import insert_verified, load_files
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError
from ship.runtime.runtime import Runtime

__all__ = ["ArtifactSource", "PromptLoader"]


class ArtifactSource(Protocol):
    """Where artifacts come from."""

    def fetch(self, digest: str) -> Mapping[str, bytes]:
        """All files of an artifact."""
        ...

    def fetch_rule(self, digest: str) -> bytes:
        """The content of a decision rule's object."""
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
            ArtifactError: It is damaged, or belongs to another task.
            OtherBackboneError: It belongs to another backbone.
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
        try:
            slot = insert_verified(self._runtime, loaded, make_room)
        except ArtifactError as error:
            found = str(loaded.card.backbone["fingerprint"])
            if found != self._runtime.backbone.fingerprint:
                raise OtherBackboneError(str(error), found) from None
            raise
        return ServedVersion(
            task=ref.task,
            version=ref.version,
            digest=ref.digest,
            labels=loaded.card.labels,
            slot=slot,
            view=loaded.card.view,
            rule=loaded.card.decision,
            own_rule=loaded.card.decision,
            distance=loaded.distance,
        )

    def read_rule(self, ref: PromptRef) -> DecisionRule:
        """Read the decision rule that a version names.

        Raises:
            ArtifactError: It is no rule, or one of another artifact.
            StoreError: It cannot be fetched, or is damaged.
        """
        assert ref.rule is not None, "the artifact's own rule comes with it"
        content, name = self._source.fetch_rule(ref.rule), f"decision rule {ref.rule[:12]}"
        try:
            found = StoredRule.from_json(content, name)
        except StoreError as error:
            # Its bytes are those that the digest stands for: reading it again is in vain.
            raise ArtifactError(str(error)) from None
        if (found.task, found.artifact) != (ref.task, ref.digest):
            raise ArtifactError(
                f"{name} is that of artifact {found.artifact[:12]} of task {found.task!r}, but version "
                f"{ref.version} of task {ref.task!r} names it; set its rule again with `ship threshold`"
            )
        return found.rule
