"""Evidence on versions: their answers on held-out images, or on any labelled data."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.errors import RegistryError
from orchestrator.registry.registry import Registry
from orchestrator.registry.versions import CHALLENGER, CHAMPION, VersionInfo
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import CARD, PromptCard
from ship.artifact.files import LoadedPrompt, load_files
from ship.artifact.held_out import HeldOut
from ship.artifact.measuring import measure
from ship.backbone import Backbone, load_backbone
from ship.data import DataSource
from ship.data.items import SplitName
from ship.decision.rule import DecisionRule
from ship.errors import BackboneError
from ship.settings.view import MAX_PIXELS

__all__ = [
    "Evidence",
    "choose_version",
    "digest_of_version",
    "load_own_backbone",
    "measure_version",
    "read_held_out",
]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Answers of one version.

    Attributes:
        version: Its number.
        digest: Digest of its artifact.
        card: Card of its artifact.
        rule: Rule that makes decisions of its scores.
        answers: Class scores of labelled images.
        held_out: Fingerprint of its held-out images and their labels; None if it is not on record.
    """

    version: int
    digest: str
    card: PromptCard
    rule: DecisionRule
    answers: HeldOut
    held_out: str | None = None


def choose_version(registry: Registry, task: str, version: int | None = None) -> VersionInfo:
    """A version of a task; by default its champion, else its challenger, else its newest one.

    Raises:
        RegistryError: There is no such task or version.
    """
    if version is not None:
        return registry.version(task, version)
    versions = registry.versions(task)
    if not versions:
        raise RegistryError(f"task {task!r} has no version")
    for alias in (CHAMPION, CHALLENGER):
        if found := [info for info in versions if alias in info.aliases]:
            return found[0]
    return versions[0]


def digest_of_version(task: str, info: VersionInfo) -> str:
    """Digest of a version's artifact.

    Raises:
        RegistryError: It was registered by another program.
    """
    if info.digest is None:
        raise RegistryError(f"version {info.version} of task {task!r} was registered by another program")
    return info.digest


def read_held_out(
    store: PromptStore, task: str, info: VersionInfo, *, instead: str | None = None
) -> Evidence:
    """The held-out answers that a version was published with.

    Args:
        store: Store of artifacts.
        task: Name of the task.
        info: The version.
        instead: The command that does without, for the message of an error.

    Raises:
        RegistryError: It has none.
        StoreError: They cannot be read.
    """
    digest = digest_of_version(task, info)
    answers = store.fetch_held_out(digest)
    if answers is None:
        raise RegistryError(
            f"version {info.version} of task {task!r} has no answers on held-out images on record: it was "
            "tuned by an earlier version of this program, or imported without data. Name labelled data to "
            f"measure it on: `{instead or f'ship eval {task} DATA --version {info.version}'}`"
        )
    return _gather(store, task, info, PromptCard.from_json(store.fetch(digest)[CARD]), answers)


def measure_version(
    store: PromptStore,
    task: str,
    info: VersionInfo,
    source: DataSource,
    *,
    split: SplitName | None = None,
    backbone: str | None = None,
    thumbnails: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evidence:
    """The answers of a version on labelled images, computed on this machine's CPU.

    Args:
        store: Store of artifacts.
        task: Name of the task.
        info: The version.
        source: The images; their classes have to be some of the task's.
        split: Split to take; None for all images.
        backbone: Name or path of its backbone; None for the one that the artifact names.
        thumbnails: Whether small pictures of mistakes are drawn.
        max_pixels: Refuse pictures with more pixels than this.
        on_progress: Called with images done and images in all.

    Raises:
        RegistryError: It was registered by another program.
        StoreError: Its artifact cannot be read.
        ArtifactError: It belongs to another backbone.
        BackboneError: The backbone is unknown or cannot be read.
        DataError: Lists every problem of the data.
    """
    digest = digest_of_version(task, info)
    loaded = load_files(store.fetch(digest), digest)
    answers = measure(
        loaded,
        load_own_backbone(loaded, backbone),
        source,
        split=split,
        thumbnails=thumbnails,
        max_pixels=max_pixels,
        on_progress=on_progress,
    )
    return _gather(store, task, info, loaded.card, answers)


def _gather(store: PromptStore, task: str, info: VersionInfo, card: PromptCard, answers: HeldOut) -> Evidence:
    """Answers with the rule by which the version decides now: that of `ship threshold`, else its own."""
    digest = digest_of_version(task, info)
    stored = store.read_rollout(task)
    changed = None if stored is None else stored[0].rules.get(digest)
    rule = card.decision if changed is None else store.rules.read(changed).rule
    return Evidence(
        version=info.version,
        digest=digest,
        card=card,
        rule=rule,
        answers=answers,
        held_out=info.held_out_fingerprint,
    )


def load_own_backbone(loaded: LoadedPrompt, name: str | None = None) -> Backbone:
    """The backbone of an artifact on the CPU, by its own name or, if it lies elsewhere, by another.

    Raises:
        BackboneError: There is no such backbone here.
    """
    named = loaded.card.backbone
    height, width = named["image_size"]
    try:
        return load_backbone(name or str(named["name"]), image_size=height if height == width else None)
    except BackboneError as error:
        if name is not None:
            raise
        raise BackboneError(f"{error}; the artifact names it: give its place as --backbone") from error
