"""Versions that are refused: to be promoted by hand without force, and to be tried."""

from collections import Counter

from orchestrator.errors import RegistryError
from orchestrator.registry.mirror import VersionFinder
from orchestrator.registry.moves import retired_version
from orchestrator.registry.registry import Registry, RegistryDown
from orchestrator.registry.versions import (
    BACKBONE_TAG,
    CHALLENGER,
    CHAMPION,
    FINGERPRINT_TAG,
    GATE_TAG,
    PREVIOUS,
    REFUSED_TAG,
    RETIRED,
    VersionInfo,
)
from orchestrator.store.documents.rollout import Rollout

__all__ = ["check_fit", "check_trial", "find_doubt", "is_refused"]

# Of versions of before 0.3, whose tags do not tell a refusal from what the gate could not judge.
_NOT_REFUSED = ("cannot be judged", "promote by hand", "published before today's champion")


def find_doubt(registry: Registry, task: str, version: int) -> str | None:
    """Why a version needs ``--force``, as a sentence; None if it does not.

    Args:
        registry: Registry of versions.
        task: Name of the task.
        version: The version.

    Raises:
        RegistryError: There is no such task or version.
    """
    try:
        info = registry.version(task, version)
        if is_refused(info):
            return f"the gate refused version {version} of task {task!r}: {info.gate_reason}"
        return _find_other_backbone(registry, task, info)
    except RegistryDown as error:
        return f"{error}: whether the gate refused version {version} of task {task!r} is not known"


def check_fit(registry: Registry, rollout: Rollout, version: int, command: str) -> None:
    """Refuse a version that takes force; one that serves, or did before, is taken as it is.

    Args:
        registry: Registry of versions.
        rollout: The rollout of its task.
        version: The version.
        command: The command that it is named in.

    Raises:
        RegistryError: It takes force, or there is no such version.
    """
    task = rollout.task
    if version in (rollout.version(role) for role in (CHAMPION, PREVIOUS, RETIRED)):
        return
    if (doubt := find_doubt(registry, task, version)) is not None:
        share = " SHARE%" if command == "canary" else ""
        raise RegistryError(
            f"{doubt.rstrip('.')}. Nothing was changed; tune the task again, or take it all the same: "
            f"`ship {command} {task} {version}{share} --force --reason TEXT`"
        )


def is_refused(info: VersionInfo) -> bool:
    """Whether the gate refused a version; one that it could not judge, or that only came late, was not."""
    if info.tags.get(GATE_TAG) != CHALLENGER:
        return False
    refused = info.tags.get(REFUSED_TAG)
    if refused is not None:
        return refused == "true"
    return not any(words in (info.gate_reason or "") for words in _NOT_REFUSED)


def _find_other_backbone(registry: Registry, task: str, info: VersionInfo) -> str | None:
    """Why no endpoint may serve a version's backbone, as far as the champions tell, which are served."""
    own = info.tags.get(FINGERPRINT_TAG)
    if own is None:
        return None
    found = Counter(registry.champion_backbones())
    if not found or own in {known for _, known in found}:
        return None
    (name, fingerprint), most = found.most_common(1)[0]
    return (
        f"version {info.version} of task {task!r} is of backbone {info.tags.get(BACKBONE_TAG, '?')} "
        f"({own[:8]}), and no champion is: {most} of {found.total()} are of {name} ({fingerprint[:8]}); an "
        "endpoint answers for the backbones that `ship serve --backbone` names"
    )


def check_trial(rollout: Rollout, version: int, ref: VersionFinder) -> None:
    """Refuse to try a version that answers already, or cannot.

    Args:
        rollout: Rollout of the task.
        version: Version to be a canary or a shadow.
        ref: Finds a version's digest.

    Raises:
        RegistryError: It is refused.
    """
    task, champion = rollout.task, rollout.version(CHAMPION)
    if champion is None and retired_version(rollout.aliases) is not None:
        raise RegistryError(f"task {task!r} is retired; `ship promote {task}` brings it back")
    if champion is None:
        raise RegistryError(
            f"task {task!r} has no champion to try a version beside; `ship promote {task} {version}` makes "
            "it the first"
        )
    if champion == version:
        raise RegistryError(
            f"version {version} of task {task!r} is its champion and answers already; name another one"
        )
    if ref(version).digest is None:
        raise RegistryError(
            f"version {version} of task {task!r} names no artifact of ours, so it cannot be served; name one "
            "that `ship tune` registered"
        )
