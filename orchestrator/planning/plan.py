"""The plan: which tasks of a manifest to tune, reuse and refuse, with estimates.

It reads data only to fingerprint it, and writes nothing.
"""

import time
from collections.abc import Callable, Generator, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.durations import describe_seconds
from orchestrator.errors import ManifestError
from orchestrator.manifest.model import Manifest, RefusedTask, TaskEntry
from orchestrator.planning.deadlines import find_late
from orchestrator.planning.estimates import Speed, count_passes, prompt_bytes
from orchestrator.planning.spec import PlannedTask, TaskSpec, task_key
from orchestrator.planning.unmeasured import describe_unmeasured
from ship.data import DataSummary, describe_data
from ship.errors import DataError
from ship.in_order import map_in_order
from ship.settings.config import TuneConfig
from ship.settings.presets import choose_settings
from ship.settings.search_config import SearchConfig
from ship.settings.view import View

if TYPE_CHECKING:
    from ship.backbone_info import BackboneInfo

__all__ = ["DEFAULT_MAX_TASKS", "Plan", "find_sure_fan_out", "make_plan"]

# More tasks than that are more often than not a mistake, such as a glob a level too high.
DEFAULT_MAX_TASKS = 1000
_NUM_THREADS = 4
# Seconds that reads have waited in all when the rest of the tasks are read by threads.
_SLOW_S = 0.1
_LISTED_LABELS = 20
_SECONDS_AN_HOUR = 3600.0


Clock = Callable[[], tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Tasks to tune, to reuse and to refuse.

    Attributes:
        backbone: Name of the backbone.
        backbone_fingerprint: 64 hex digits.
        tasks: Tasks to tune or reuse, in the manifest's order.
        refused: Tasks that will not be tuned: over their budget, or with problems.
        speed: Speed behind the estimates of time; None if it is unknown.
        warnings: Warnings for the user.
    """

    backbone: str
    backbone_fingerprint: str
    tasks: tuple[PlannedTask, ...]
    refused: tuple[RefusedTask, ...] = ()
    speed: Speed | None = None
    warnings: tuple[str, ...] = ()

    @property
    def to_tune(self) -> tuple[PlannedTask, ...]:
        """Tasks that are not published yet."""
        return tuple(task for task in self.tasks if task.action == "tune")

    @property
    def to_reuse(self) -> tuple[PlannedTask, ...]:
        """Tasks that are published already."""
        return tuple(task for task in self.tasks if task.action == "reuse")

    @property
    def estimate_s(self) -> float | None:
        """Seconds on one worker for all tasks to tune; None if the speed is unknown."""
        seconds = [task.estimate_s for task in self.to_tune]
        known = [second for second in seconds if second is not None]
        return sum(known) if len(known) == len(seconds) else None

    @property
    def estimate_bytes(self) -> int:
        """Storage for all tasks to tune."""
        return sum(task.estimate_bytes for task in self.tasks)

    @property
    def device_hours(self) -> float | None:
        """Hours of one device for all tasks to tune; None if the speed is unknown."""
        return None if self.estimate_s is None else self.estimate_s / _SECONDS_AN_HOUR

    def find_fan_out(self, max_tasks: int) -> str | None:
        """A message if more than ``max_tasks`` would be tuned, else None."""
        return _describe_fan_out(len(self.to_tune), max_tasks)


def find_sure_fan_out(manifest: Manifest, published: Set[tuple[str, str]], max_tasks: int) -> str | None:
    """A message if more than ``max_tasks`` are certain to be tuned, before any data is read; else None.

    A task without a publication is tuned whatever its data, unless it has a budget.
    """
    names = {name for name, _ in published}
    sure = [task for task in manifest.tasks if task.name not in names and task.terms.budget_s is None]
    return _describe_fan_out(len(sure), max_tasks)


def make_plan(
    manifest: Manifest,
    *,
    backbone: "BackboneInfo",
    published: Set[tuple[str, str]],
    speed: Speed | None = None,
    keep_going: bool = False,
    now_s: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    clock: Clock = lambda: (time.perf_counter(), time.process_time()),
) -> Plan:
    """Fingerprint every task's data and compare with what is published.

    Args:
        manifest: Tasks, limits and the size of the pool.
        backbone: The backbone that the manifest names.
        published: Task name and task key of each published artifact.
        speed: Speed of one worker on this backbone, if known.
        keep_going: Refuse single tasks for the problems of their data.
        now_s: Seconds since the epoch; None checks no deadlines.
        on_progress: Called in this thread with tasks done and tasks in all.
        clock: Wall and CPU seconds of this process, which tell whether reads wait.

    Raises:
        ManifestError: Lists every problem of every task's data.
    """
    planned, broken = _plan_all(manifest.tasks, backbone, published, speed, on_progress, clock)
    if broken and not keep_going:
        raise ManifestError([f"task {task.name}: {reason}" for task in broken for reason in task.reasons])
    over_budget = {task.name: task for task in map(_refuse_over_budget, planned) if task is not None}
    plan = Plan(
        backbone=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        tasks=tuple(task for task in planned if task.spec.name not in over_budget),
        refused=(*manifest.refused, *broken, *over_budget.values()),
        speed=speed,
    )
    warnings = _find_warnings(plan, manifest.pool.max_workers, now_s)
    return replace(plan, warnings=(*warnings, *_find_shrunk(planned)))


def _plan_all(
    tasks: Sequence[TaskEntry],
    backbone: "BackboneInfo",
    published: Set[tuple[str, str]],
    speed: Speed | None,
    on_progress: Callable[[int, int], None],
    clock: Clock,
) -> tuple[list[PlannedTask], list[RefusedTask]]:
    """Tasks with their estimates, and those whose data has problems."""
    planned: list[PlannedTask] = []
    broken: list[RefusedTask] = []
    with closing(_describe_all(tasks, clock)) as summaries:
        for number, (entry, summary) in enumerate(zip(tasks, summaries, strict=True), start=1):
            if isinstance(summary, DataError):
                broken.append(RefusedTask(name=entry.name, reasons=summary.problems, tags=entry.tags))
            elif unknown := sorted(set(entry.floors.recall) - set(summary.labels)):
                reason = f"gate.recall: {', '.join(unknown)}: expected classes of the data: "
                labels = ", ".join(summary.labels[:_LISTED_LABELS])
                broken.append(RefusedTask(name=entry.name, reasons=(reason + labels,), tags=entry.tags))
            else:
                planned.append(_plan_task(entry, summary, backbone, published, speed))
            on_progress(number, len(tasks))
    return planned, broken


def _describe_all(tasks: Sequence[TaskEntry], clock: Clock) -> Generator[DataSummary | DataError]:
    """The data of each task, in order: by this thread while that takes CPU time, by several once reads wait.

    A path does not tell whether a network lies behind it. Threads that read many small files of a local disk
    only wait for each other.
    """
    waited_s, wall_s, num_done = 0.0, 0.0, 0
    is_slow = any("://" in entry.source.path for entry in tasks)
    while num_done < len(tasks) and not is_slow:
        before = clock()
        summary = _describe(tasks[num_done])
        wall, cpu = (now - then for now, then in zip(clock(), before, strict=True))
        wall_s, waited_s, num_done = wall_s + wall, waited_s + wall - cpu, num_done + 1
        is_slow = waited_s > max(_SLOW_S, wall_s / 2)
        yield summary
    yield from map_in_order(_describe, tasks[num_done:], _NUM_THREADS)


def _describe_fan_out(num_tasks: int, max_tasks: int) -> str | None:
    if num_tasks <= max_tasks:
        return None
    return (
        f"{num_tasks} tasks would be tuned, the limit is {max_tasks}; to tune them all, give --max-tasks "
        f"{num_tasks} or write `max_tasks: {num_tasks}` into the manifest; to tune fewer, use --only or --tag"
    )


def _describe(entry: TaskEntry) -> DataSummary | DataError:
    try:
        return describe_data(entry.source)
    except DataError as error:
        return error


def _refuse_over_budget(task: PlannedTask) -> RefusedTask | None:
    spec, budget_s = task.spec, task.spec.terms.budget_s
    if budget_s is None or task.estimate_s is None or task.estimate_s <= budget_s:
        return None
    reason = (
        f"over its budget: tuning takes about {describe_seconds(task.estimate_s)} of one device, the budget "
        f"is {describe_seconds(budget_s)}; raise it, or lower `epochs`, the preset or the search"
    )
    return RefusedTask(name=spec.name, reasons=(reason,), tags=spec.tags)


def _find_warnings(plan: Plan, num_workers: int | None, now_s: float | None) -> list[str]:
    warnings = [] if now_s is None else find_late(plan.to_tune, num_workers=num_workers, now_s=now_s)
    warnings += [
        f"task {task.spec.name}: {task.num_repeated} training images are copies of another"
        for task in plan.to_tune
        if task.num_repeated
    ]
    warnings += [
        f"task {task.spec.name}: {task.num_repeated_held_out} held-out images are copies of another: what "
        "a decision rule promises counts each picture once"
        for task in plan.to_tune
        if task.num_repeated_held_out
    ]
    warnings += [
        f"task {task.spec.name}: left out beside its pictures: {'; '.join(task.passed_over)}"
        for task in plan.to_tune
        if task.passed_over
    ]
    warnings += [
        f"task {task.spec.name}: {describe_unmeasured(task.unmeasured, task.num_classes)}"
        for task in plan.to_tune
        if task.unmeasured
    ]
    unchecked = [
        task for task in plan.to_tune if task.spec.terms.budget_s is not None and task.estimate_s is None
    ]
    if unchecked:
        warnings.append(
            f"budgets of {len(unchecked)} tasks are not checked: the speed is not known before a first task "
            "is tuned"
        )
    return warnings


def _find_shrunk(planned: Sequence[PlannedTask]) -> list[str]:
    """A warning for the tasks to tune whose pictures are shrunk so far that small defects may vanish."""
    found: dict[str, list[str]] = {}
    for task in planned:
        if task.action == "tune" and task.shrinking is not None:
            found.setdefault(task.shrinking, []).append(task.spec.name)
    return [
        f"task {tasks[0]}{f' and {len(tasks) - 1} more' if len(tasks) > 1 else ''}: {message}"
        for message, tasks in found.items()
    ]


def _num_tiles(view: View, summary: DataSummary, input_size: tuple[int, int]) -> int:
    """Tiles of a picture; one where they are ``auto`` and the pictures lie behind a network."""
    if view.tiles == "auto":
        view = view.resolved(summary.sizes, input_size) if summary.sizes else replace(view, tiles="1x1")
    return view.num_tiles


def _estimate(
    spec: TaskSpec, summary: DataSummary, backbone: "BackboneInfo", speed: Speed | None
) -> tuple[float | None, int]:
    """Seconds that a task is tuned for, None if the speed is not known, and bytes of its prompt."""
    num_tiles = _num_tiles(spec.view, summary, backbone.image_size)
    num_images = num_tiles * count_passes(spec.config, spec.search, summary)
    seconds = None if speed is None else num_images / speed.images_per_s
    return seconds, prompt_bytes(spec.config, backbone, len(summary.labels), summary.num_train)


def _make_spec(
    entry: TaskEntry, summary: DataSummary, key: str, config: TuneConfig, search: SearchConfig | None
) -> TaskSpec:
    return TaskSpec(
        name=entry.name,
        key=key,
        source=entry.source,
        view=entry.view,
        config=config,
        search=search,
        tags=entry.tags,
        terms=entry.terms,
        floors=entry.floors,
        thumbnails=entry.thumbnails,
        data_fingerprint=summary.fingerprint,
        num_images=summary.num_train,
    )


def _plan_task(
    entry: TaskEntry,
    summary: DataSummary,
    backbone: "BackboneInfo",
    published: Set[tuple[str, str]],
    speed: Speed | None,
) -> PlannedTask:
    config, search = choose_settings(
        entry.config,
        preset=entry.preset,
        search=entry.search,
        pinned=entry.pinned,
        auto=entry.auto,
        num_train=summary.num_train,
        num_classes=len(summary.labels),
    )
    key = task_key(summary.fingerprint, config, backbone.fingerprint, search=search, view=entry.view)
    spec = _make_spec(entry, summary, key, config, search)
    is_published = (spec.name, spec.key) in published
    seconds, num_bytes = (0.0, 0) if is_published else _estimate(spec, summary, backbone, speed)
    return PlannedTask(
        spec=spec,
        action="reuse" if is_published else "tune",
        num_classes=len(summary.labels),
        num_held_out=summary.num_test or summary.num_val,
        estimate_s=seconds,
        estimate_bytes=num_bytes,
        num_repeated=summary.num_repeated,
        num_repeated_held_out=summary.num_repeated_held_out,
        passed_over=tuple(map(str, summary.passed_over)),
        unmeasured=summary.unmeasured,
        evidence={str(kind): count for kind, count in summary.evidence.items()},
        shrinking=entry.view.find_shrinking(summary.sizes, backbone.image_size) if summary.sizes else None,
    )
