"""What serves of tasks whose artifact is in the store: that artifact's version, or another one."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.errors import RegistryError
from orchestrator.registry.session import RegistryMissing
from orchestrator.registry.versions import TASK_KEY_TAG, TaskInfo, VersionInfo
from orchestrator.train.verdicts import Decisions

__all__ = ["Standing", "find_standings"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A registered artifact beside the version of its task that serves.

    Attributes:
        version: Version that has the artifact.
        champion: Version that serves; None if none does.
        is_retired: Whether the task was taken out of service.
    """

    version: int
    champion: int | None
    is_retired: bool = False

    @property
    def serves(self) -> bool:
        """Whether it is the artifact that serves."""
        return self.version == self.champion

    def describe(self) -> str:
        """Where the artifact is, and what serves."""
        if self.serves:
            return f"version {self.version} serves"
        if self.is_retired:
            other = "the task is retired"
        else:
            other = "nothing serves" if self.champion is None else f"version {self.champion} serves"
        return f"in the store as version {self.version}; {other}"


def find_standings(registry: Decisions, keys: Iterable[tuple[str, str]]) -> dict[str, Standing]:
    """Standings of published task keys, by task; without those that the registry does not know.

    A champion tells its task key. All versions are listed only where that of a task is another one.

    Args:
        registry: The registry.
        keys: Task and task key of each.
    """
    wanted = dict(keys)
    if not wanted:
        return {}
    try:
        infos = {info.task: info for info in registry.tasks() if info.task in wanted}
        own = {task: _served(info, wanted[task]) for task, info in infos.items()}
        if None in own.values():
            gated = {(task, _key(info)): info for (task, _), info in registry.gated_versions().items()}
            own |= {task: gated.get((task, wanted[task])) for task, found in own.items() if found is None}
    except RegistryMissing:
        return {}
    except RegistryError as error:
        _logger.warning("which versions serve is not known: %s", error)
        return {}
    return {
        task: Standing(
            version=found.version,
            champion=None if (champion := infos[task].champion) is None else champion.version,
            is_retired=infos[task].is_retired,
        )
        for task, found in own.items()
        if found is not None
    }


def _served(info: TaskInfo, key: str) -> VersionInfo | None:
    """The champion, if it has this task key."""
    return info.champion if info.champion is not None and _key(info.champion) == key else None


def _key(info: VersionInfo) -> str | None:
    return info.tags.get(TASK_KEY_TAG)
