"""Adapters of other programs as versions in the registry, and versions as adapters for other programs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import RegistryError
from orchestrator.events import Event
from orchestrator.registry.evidence import digest_of_version
from orchestrator.registry.recorder import Recorder
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import CHAMPION, VersionInfo
from orchestrator.store.documents.audit import Author
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.artifact.peft import prompt_to_adapter
from ship.errors import ArtifactError

__all__ = ["Admission", "admit", "export_version"]


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Result of an import.

    Attributes:
        version: The version in the registry.
        is_new: False if the same import was published before.
        waits: Whether its promotion waits for an approval.
    """

    version: VersionInfo
    is_new: bool
    waits: bool = False


def admit(
    task: str,
    key: str,
    files: Mapping[str, bytes],
    *,
    store: PromptStore,
    registry: Registry,
    recorder: Recorder,
    promote: bool = False,
    author: Author | None = None,
) -> Admission:
    """Publish the artifact of an import, register it, and let it pass the gate. Repeating it changes nothing.

    Args:
        task: Name of the task.
        key: Task key of the import.
        files: The artifact.
        store: Store of artifacts.
        registry: Registry of versions.
        recorder: Writer of records; closed here.
        promote: Serve it whatever the gate's decision.
        author: Author of that promotion; by default the user of this process.

    Raises:
        StoreError: The store failed.
        RegistryError: The registry did not take it; it is published, and the next command records it.
    """
    publication = store.publish(task, key, files)
    event = Event(
        kind="published",
        task=task,
        key=key,
        attempt=1,
        time_s=publication.time_s,
        data={"digest": publication.digest, "params": {"imported": "peft"}},
    )
    recorder.handle([event])
    backlog = recorder.close(math.inf)
    if backlog.num_records:
        raise RegistryError(f"task {task!r} is published, but not registered yet: {backlog}")
    found = _find(registry, task, publication.digest)
    waits = False
    if promote and CHAMPION not in found.aliases:
        waits = Rollouts(registry, store, author).promote(task, found.version, force=True).waits
        found = _find(registry, task, publication.digest)
    return Admission(version=found, is_new=publication.created, waits=waits)


def export_version(
    task: str, version: int | None, *, store: PromptStore, registry: Registry
) -> tuple[int, dict[str, bytes]]:
    """The files of a PEFT adapter that answers as a version does, and the version's number.

    Args:
        task: Name of the task.
        version: The version; by default the champion.
        store: Store of artifacts.
        registry: Registry of versions.

    Raises:
        RegistryError: There is no such task or version, or no champion, or its artifact is not ours.
        ArtifactError: Lists what the version has that a PEFT adapter cannot hold.
        StoreError: The artifact cannot be read.
    """
    info = registry.champion(task) if version is None else registry.version(task, version)
    if info is None:
        raise RegistryError(f"task {task!r} has no champion; name a version: `ship show {task}` lists them")
    digest = digest_of_version(task, info)
    loaded = load_files(store.fetch(digest), digest)
    if not loaded.card.view.is_default:
        raise ArtifactError(
            f"view: a PEFT adapter has none, this version has {loaded.card.view.to_dict()}; tune the "
            "task without `view`"
        )
    return info.version, prompt_to_adapter(loaded.prompt, loaded.card.backbone["name"], loaded.card.labels)


def _find(registry: Registry, task: str, digest: str) -> VersionInfo:
    for info in registry.versions(task):
        if info.digest == digest:
            return info
    raise RegistryError(f"task {task!r}: artifact {digest[:12]} is published, but is no version; see the log")
