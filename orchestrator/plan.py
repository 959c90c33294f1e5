"""The plan: what a manifest asks for, what of it is published already, and what the rest will take.

It reads data only to fingerprint it, and writes nothing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.errors import ManifestError
from orchestrator.manifest import Manifest, TaskEntry
from ship.config import METHOD_VERSION, TuneConfig
from ship.data import DataSource, DataSummary, describe_data
from ship.errors import DataError
from ship.presets import choose_settings
from ship.schedule import count_epochs
from ship.search import SearchConfig, num_full_tunings

__all__ = ["BackboneShape", "Plan", "PlannedTask", "TaskSpec", "make_plan", "task_key"]

_BYTES_A_NUMBER = 4
# The nine published matrices give 6 to 12 levels on 12 layers; the true number is known after tuning.
_LEVELS_A_LAYER = 2 / 3
_NUM_THREADS = 4

# Listing a store tells keys at once; digests cost one read each.
Published = Mapping[tuple[str, str], str] | Set[tuple[str, str]]


class BackboneShape(Protocol):
    """What the plan must know of a backbone; ``ship.backbone.BackboneInfo`` is one."""

    @property
    def name(self) -> str:
        """As the user named it."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits."""

    @property
    def depth(self) -> int:
        """L, number of blocks."""

    @property
    def width(self) -> int:
        """D, of a token."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """All that a worker needs to know to tune a task.

    Attributes:
        name: Task name.
        key: 64 hex digits; the same key means the same prompt.
        source: Its data.
        config: Its settings, before a search.
        search: What to search first, if anything.
        tags: For people to find it by.
        data_fingerprint: Of the data as it was when planned.
        num_images: Training images.
    """

    name: str
    key: str
    source: DataSource
    config: TuneConfig
    search: SearchConfig | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    data_fingerprint: str
    num_images: int


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """One task, and what is to be done.

    Attributes:
        spec: The task.
        action: ``tune``, or ``reuse`` if its prompt is in the store already.
        digest: Of the published artifact, if there is one and the caller knew its digest.
        num_classes: C.
        num_held_out: Images to measure the result on.
        estimate_s: Seconds on one worker, 0 for ``reuse``; None if the speed is not known.
        estimate_bytes: Storage of the prompt's tensors, 0 for ``reuse``; takes the number of levels for two
            thirds of the layers.
    """

    spec: TaskSpec
    action: Literal["tune", "reuse"]
    digest: str | None
    num_classes: int
    num_held_out: int
    estimate_s: float | None
    estimate_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What running a manifest would do.

    Attributes:
        backbone: Its name.
        backbone_fingerprint: 64 hex digits.
        tasks: In the manifest's order.
    """

    backbone: str
    backbone_fingerprint: str
    tasks: tuple[PlannedTask, ...]

    @property
    def to_tune(self) -> tuple[PlannedTask, ...]:
        """The tasks that are not published yet."""
        return tuple(task for task in self.tasks if task.action == "tune")

    @property
    def to_reuse(self) -> tuple[PlannedTask, ...]:
        """The tasks that are published already."""
        return tuple(task for task in self.tasks if task.action == "reuse")

    @property
    def estimate_s(self) -> float | None:
        """Seconds on one worker for all that is to be tuned; None if the speed is not known."""
        seconds = [task.estimate_s for task in self.to_tune]
        known = [second for second in seconds if second is not None]
        return sum(known) if len(known) == len(seconds) else None

    @property
    def estimate_bytes(self) -> int:
        """Storage for all that is to be tuned."""
        return sum(task.estimate_bytes for task in self.tasks)

    def to_json(self) -> str:
        """The plan as JSON, indented."""
        values = {
            "backbone": {"name": self.backbone, "fingerprint": self.backbone_fingerprint},
            "num_to_tune": len(self.to_tune),
            "num_to_reuse": len(self.to_reuse),
            "estimate_s": self.estimate_s,
            "estimate_bytes": self.estimate_bytes,
            "tasks": [_flat(task) for task in self.tasks],
        }
        return json.dumps(values, indent=2)


def task_key(
    data_fingerprint: str,
    config: TuneConfig,
    backbone_fingerprint: str,
    method_version: str = METHOD_VERSION,
    search: SearchConfig | None = None,
) -> str:
    """What a prompt follows from, in 64 hex digits: the same key would give the same prompt again."""
    values: dict[str, Any] = {
        "data": data_fingerprint,
        "config": config.to_dict(),
        "backbone": backbone_fingerprint,
        "method": method_version,
    }
    if search is not None:
        values["search"] = search.to_dict()
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_plan(
    manifest: Manifest,
    *,
    backbone: BackboneShape,
    published: Published,
    images_per_s: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Fingerprint every task's data and compare with what is published.

    Args:
        manifest: What is asked for.
        backbone: The one that the manifest names.
        published: Task name and task key of each published artifact; as a mapping, with its digest.
        images_per_s: Training images that one worker goes through in a second, all passes counted.
        on_progress: Called in this thread with tasks done and tasks in all.

    Raises:
        ManifestError: Lists every problem of every task's data.
    """
    planned: list[PlannedTask] = []
    problems: list[str] = []
    pool = ThreadPoolExecutor(_NUM_THREADS)
    try:
        summaries = pool.map(_describe, manifest.tasks)
        for number, (entry, summary) in enumerate(zip(manifest.tasks, summaries, strict=True), start=1):
            if isinstance(summary, DataError):
                problems += [f"task {entry.name}: {problem}" for problem in summary.problems]
            else:
                planned.append(_plan_task(entry, summary, backbone, published, images_per_s))
            if on_progress is not None:
                on_progress(number, len(manifest.tasks))
    finally:
        # After an error or an interrupt, what has not begun is not worth waiting for.
        pool.shutdown(cancel_futures=True)
    if problems:
        raise ManifestError(problems)
    return Plan(backbone=backbone.name, backbone_fingerprint=backbone.fingerprint, tasks=tuple(planned))


def _describe(entry: TaskEntry) -> DataSummary | DataError:
    try:
        return describe_data(entry.source)
    except DataError as error:
        return error


def _plan_task(
    entry: TaskEntry,
    summary: DataSummary,
    backbone: BackboneShape,
    published: Published,
    images_per_s: float | None,
) -> PlannedTask:
    num_classes = len(summary.labels)
    config, search = choose_settings(
        entry.config,
        preset=entry.preset,
        search=entry.search,
        pinned=entry.pinned,
        num_train=summary.num_train,
        num_classes=num_classes,
    )
    key = task_key(summary.fingerprint, config, backbone.fingerprint, search=search)
    is_published = (entry.name, key) in published
    digest = published[entry.name, key] if is_published and isinstance(published, Mapping) else None
    seconds: float | None = 0.0
    num_bytes = 0
    if not is_published:
        has_val = summary.num_val > 0 and summary.num_test > 0
        num_tunings = num_full_tunings(search, summary.num_train, has_val=has_val)
        num_passes = summary.num_train * count_epochs(config, summary.num_train) * num_tunings
        seconds = num_passes / images_per_s if images_per_s is not None else None
        num_bytes = _prompt_bytes(config, backbone, num_classes, summary.num_train)
    return PlannedTask(
        spec=TaskSpec(
            name=entry.name,
            key=key,
            source=entry.source,
            config=config,
            search=search,
            tags=entry.tags,
            data_fingerprint=summary.fingerprint,
            num_images=summary.num_train,
        ),
        action="reuse" if is_published else "tune",
        digest=digest,
        num_classes=num_classes,
        num_held_out=summary.num_test or summary.num_val,
        estimate_s=seconds,
        estimate_bytes=num_bytes,
    )


def _prompt_bytes(config: TuneConfig, backbone: BackboneShape, num_classes: int, num_train: int) -> int:
    """Size of a prompt's tensors in float32: independent, shared, attribute, prototypes, head, gates."""
    num_levels = max(1, round(backbone.depth * _LEVELS_A_LAYER))
    num_groups = min(config.num_attribute_groups, num_levels - 1)
    num_tokens = (
        num_levels * config.num_independent
        + config.num_shared
        + num_groups * config.num_attribute
        + min(config.num_prototypes, num_train)
        + num_classes
    )
    return _BYTES_A_NUMBER * (num_tokens * backbone.width + num_classes + backbone.depth)


def _flat(task: PlannedTask) -> dict[str, Any]:
    values = asdict(task)
    spec = values.pop("spec")
    return {**spec, **values}
