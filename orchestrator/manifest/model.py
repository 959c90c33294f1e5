"""A task as the manifest asks for it, and one that it asks for in vain."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.manifest.terms import Terms
from ship.data import DataSource
from ship.settings.config import TuneConfig
from ship.settings.presets import Preset
from ship.settings.search_config import SearchConfig

__all__ = ["RefusedTask", "TaskEntry"]


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """One task of a manifest.

    Attributes:
        name: A task name.
        source: Its data; the path is absolute or a URL.
        config: The defaults with the task's own settings over them.
        tags: For people to find it by.
        preset: Chooses settings once the size of the data is known; None leaves ``config`` as it is.
        search: What to search; None leaves it to the preset.
        pinned: Names of settings that the manifest gives, which no preset may change.
        terms: Priority, deadline and budget.
    """

    name: str
    source: DataSource
    config: TuneConfig
    tags: Mapping[str, str] = field(default_factory=dict)
    preset: Preset | None = None
    search: SearchConfig | None = None
    pinned: frozenset[str] = frozenset()
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, kw_only=True)
class RefusedTask:
    """A task that will not be tuned.

    Attributes:
        name: Its name, or the place of its entry if that has no name that could be read.
        reasons: Why; at least one.
        tags: As far as they could be read.
    """

    name: str
    reasons: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
