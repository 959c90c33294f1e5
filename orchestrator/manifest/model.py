"""A manifest's values: its tasks, refused tasks, limits on data and the pool."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self

from orchestrator.durations import parse_duration
from orchestrator.manifest.floors import Floors
from orchestrator.settings import Executor
from ship.data import DataSource
from ship.settings.checks import check_settings, number, whole
from ship.settings.config import TuneConfig
from ship.settings.presets import Preset
from ship.settings.search_config import SearchConfig
from ship.settings.view import DEFAULT_VIEW, View

__all__ = [
    "TERMS",
    "DataLimits",
    "Manifest",
    "PoolSettings",
    "RefusedTask",
    "TaskEntry",
    "Terms",
    "parse_deadline",
]


_MAX_PRIORITY = 1_000_000


_share = number("from 0 to 1", lambda v: 0.0 <= v <= 1.0)
_CHECKS = {
    "corrupt": _share,
    "leaked": _share,
    "contradictory": _share,
    "duplicates": _share,
    "near_duplicates": _share,
    "dark": _share,
    "flat": _share,
    "blurred": _share,
    "odd_sized": _share,
    "imbalance": number("from 1", lambda v: v >= 1.0),
    "images_a_class": whole(0),
    "held_out": whole(0),
    "label_typos": whole(0),
}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Priority, deadline and budget of a task, and the approvals that it needs.

    Attributes:
        priority: Higher goes first.
        deadline_s: Time by which it is to be published, seconds since the epoch; earlier goes first.
        budget_s: Limit on the seconds of one device that the plan estimates for it.
        approvals: Persons beside the one who asks that a promotion takes: 0 or 1.
    """

    priority: int = 0
    deadline_s: float | None = None
    budget_s: float | None = None
    approvals: int = 0

    @property
    def order(self) -> tuple[float, float]:
        """Sort key; the first task has the least."""
        return -self.priority, math.inf if self.deadline_s is None else self.deadline_s


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """One task of a manifest.

    Attributes:
        name: Task name.
        source: Source of its data; the path is absolute or a URL.
        view: Part of its pictures that is looked at, and their tiles.
        config: The defaults with the task's own settings over them.
        tags: Tags for users to find it by.
        preset: Preset that chooses settings by the size of the data; None leaves ``config`` as it is.
        search: Settings to search; None leaves it to the preset.
        pinned: Names of settings in the manifest, which no preset may change.
        auto: Names of settings that are `auto` in the manifest: validation chooses.
        terms: Priority, deadline, budget and approvals.
        floors: The least that a version has to reach before it may serve.
        thumbnails: Whether small pictures of mistakes are kept in the artifact.
    """

    name: str
    source: DataSource
    view: View = DEFAULT_VIEW
    config: TuneConfig
    tags: Mapping[str, str] = field(default_factory=dict)
    preset: Preset | None = None
    search: SearchConfig | None = None
    pinned: frozenset[str] = frozenset()
    auto: frozenset[str] = frozenset()
    terms: Terms = field(default_factory=Terms)
    floors: Floors = field(default_factory=Floors)
    thumbnails: bool = True


@dataclass(frozen=True, kw_only=True)
class RefusedTask:
    """A task that will not be tuned.

    Attributes:
        name: Task name, or the place of its entry if the name is missing or wrong.
        reasons: Problems of the task; at least one.
        tags: Tags, as far as they could be read.
    """

    name: str
    reasons: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataLimits:
    """Limits on a task's data. What exceeds one fails ``ship check``; the rest is a warning.

    Attributes:
        corrupt: Share of images that cannot be read.
        leaked: Share of held-out images whose very pixels are also trained on.
        contradictory: Share of images whose very pixels are in two classes.
        duplicates: Share of images whose very pixels came before, within a split.
        near_duplicates: Share of held-out images that are nearly one that is trained on.
        dark: Share that is almost black, or almost white.
        flat: Share that shows next to nothing: one even tone.
        blurred: Share with far less fine detail than the task's others.
        odd_sized: Share whose sides differ in proportion from the task's others.
        imbalance: Training images of the largest class for one of the smallest.
        images_a_class: Fewest training images of a class.
        held_out: Fewest images to measure the result on.
        label_typos: Pairs of classes that look like one, spelt in two ways.
    """

    corrupt: float = 0.0
    leaked: float = 0.0
    contradictory: float = 0.0
    duplicates: float = 1.0
    near_duplicates: float = 1.0
    dark: float = 1.0
    flat: float = 1.0
    blurred: float = 1.0
    odd_sized: float = 1.0
    imbalance: float = 1e9
    images_a_class: int = 1
    held_out: int = 1
    label_typos: int = 1_000_000

    def __post_init__(self) -> None:
        """Check every limit.

        Raises:
            ConfigError: Lists all that are out of range.
        """
        check_settings(self, _CHECKS)


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Size and executor of a pool of workers; None stands for the default.

    Attributes:
        min_workers: Fewest workers with which work begins; default 1.
        max_workers: Most workers; default one for each GPU, else for each CPU.
        executor: Executor of the workers; default Ray Train.
        max_fused: Most tasks that a worker tunes side by side; default as many as fit and pay.
    """

    min_workers: int | None = None
    max_workers: int | None = None
    executor: Executor | None = None
    max_fused: int | None = None

    def over(self, other: Self) -> Self:
        """These values, and the other's where one is None."""
        chosen = {
            field.name: getattr(other if getattr(self, field.name) is None else self, field.name)
            for field in fields(self)
        }
        if self.max_workers is not None and self.min_workers is None:
            # A flag below the manifest's minimum lowers the minimum.
            chosen["min_workers"] = min(self.max_workers, other.min_workers or 1)
        return type(self)(**chosen)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest as read and checked.

    Attributes:
        backbone: ``bundled``, a timm name, or the path of a checkpoint.
        image_size: Height and width of the backbone's input in pixels; None for its own.
        store: URL or path of the store of prompts; None leaves it to the settings.
        tasks: Valid tasks in the order of the file, then those of ``tasks_from`` by name.
        limits: Limits on data; see ``orchestrator.planning.check``.
        pool: Size and executor of the pool.
        max_tasks: Most tasks that are tuned in one run; None stands for the default.
        refused: Tasks whose entries have problems, if the manifest was read with ``keep_going``.
        digest: sha256 of the file, 64 hex digits.
    """

    backbone: str
    image_size: int | None = None
    store: str | None
    tasks: tuple[TaskEntry, ...]
    limits: DataLimits = field(default_factory=DataLimits)
    pool: PoolSettings = field(default_factory=PoolSettings)
    max_tasks: int | None = None
    refused: tuple[RefusedTask, ...] = ()
    digest: str = ""


def parse_deadline(value: object) -> float:
    """Seconds since the epoch.

    Args:
        value: ISO 8601 with a zone, as text or as YAML's date-time.

    Raises:
        ValueError: The value is anything else; the message says what is expected.
    """
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("expected a date-time with a zone such as 2026-11-30T06:00:00+01:00")
    return moment.timestamp()


def _parse_priority(value: object) -> int:
    if type(value) is not int or abs(value) > _MAX_PRIORITY:
        raise ValueError(f"expected a whole number of at most {_MAX_PRIORITY}")
    return value


def _parse_approvals(value: object) -> int:
    if type(value) is not int or value not in (0, 1):
        raise ValueError("expected 0, or 1 for a promotion that waits for a second person")
    return value


# Key in a manifest -> field of ``Terms`` and its parser.
TERMS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "priority": ("priority", _parse_priority),
    "deadline": ("deadline_s", parse_deadline),
    "budget": ("budget_s", parse_duration),
    "approvals": ("approvals", _parse_approvals),
}
