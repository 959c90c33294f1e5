"""A version of a task: as the catalog names it, and as it is in memory, ready to answer."""

from dataclasses import dataclass, replace

from ship.runtime.slots import Slot
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["Key", "PromptRef", "ServedVersion"]

# Task and digest. Not the digest alone: a catalog that names one artifact under two tasks is wrong for one.
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class PromptRef:
    """One version of a task, wherever its prompt is.

    Attributes:
        task: Its name.
        version: In the registry.
        digest: Digest of the artifact.
    """

    task: str
    version: int
    digest: str

    @property
    def key(self) -> Key:
        """Identity of the prompt: two versions of one digest are one prompt."""
        return self.task, self.digest


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """One version of a task, ready to answer.

    Attributes:
        task: Its name.
        version: In the registry.
        digest: Digest of the artifact.
        labels: In the order of the scores.
        slot: The prompt on the device.
        view: View that images for it are decoded by.
        shadow_version: Version to be asked the same, once this one has answered; None for none.
    """

    task: str
    version: int
    digest: str
    labels: tuple[str, ...]
    slot: Slot
    view: View = DEFAULT_VIEW
    shadow_version: int | None = None

    def named(self, version: int, shadow_version: int | None = None) -> "ServedVersion":
        """The same prompt under another number, or with a shadow."""
        if (self.version, self.shadow_version) == (version, shadow_version):
            return self
        return replace(self, version=version, shadow_version=shadow_version)
