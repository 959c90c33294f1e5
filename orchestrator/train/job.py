"""The main job from manifest to registry: check, plan, tune what is missing, record, report.

Composes the parts and owns their order. Each can be read and tested without this file.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.errors import ManifestError, StoreError
from orchestrator.events import Event
from orchestrator.manifest.load import RefusedTask
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.request import Request
from orchestrator.planning.estimates import TuningRun, learn_speed
from orchestrator.planning.plan import DEFAULT_MAX_TASKS, Plan, TaskSpec, find_sure_fan_out, make_plan
from orchestrator.registry.recorder import MAX_FAREWELL_S, Backlog, Recorder
from orchestrator.registry.registry import Registry
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.run_stats import RunStats
from orchestrator.train.executor import RunSummary, name_run, run_tasks
from orchestrator.train.ledger.status import Snapshot
from orchestrator.train.run_folder import RunFolder, hold_run
from ship.backbone import Backbone, load_backbone
from ship.findings import find_warnings
from ship.settings.search_config import AXES

__all__ = ["Job", "JobReport", "prepare_job"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """How a job ended.

    Attributes:
        reused: Tasks that were published already.
        summary: Of those that were tuned.
        backlog: Records that MLflow has not taken yet.
        warnings: Task to what its owner should hear of the prompt that was tuned, for those that have any.
        refused: Tasks that were not tuned, and why.
    """

    reused: tuple[str, ...]
    summary: RunSummary
    backlog: Backlog
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: tuple[RefusedTask, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A manifest that was found sound, and what is to be done about it.

    Attributes:
        manifest: As checked, with the tasks that are asked for.
        plan: What will be tuned and what is done already.
        settings: With the manifest's store.
        backbone: Loaded.
        request: What was asked for.
        path: Of the manifest.
    """

    manifest: Manifest
    plan: Plan
    settings: Settings
    backbone: Backbone
    request: Request
    path: str

    def check_fan_out(self) -> None:
        """Guard against starting more than was meant.

        Raises:
            ManifestError: More tasks would be tuned than the request, the manifest or the default allows.
        """
        _refuse_fan_out(self.plan.find_fan_out(_max_tasks(self.request, self.manifest)))

    def run(self, *, on_progress: Callable[[Snapshot], None] = lambda snapshot: None) -> JobReport:
        """Tune what is missing, and record all that is published.

        Args:
            on_progress: Gets the state of all tasks about twice a second.

        Raises:
            ManifestError: They are more than was meant; nothing was written.
            ExecutionError: Another run is at work in this home, or the worker pool died for good. What was
                published stays.
        """
        self.check_fan_out()
        run = name_run()
        with hold_run(self.settings.home, run, self.path) as folder:
            return self._run(run, folder, on_progress)

    def _run(self, run: str, folder: RunFolder, on_progress: Callable[[Snapshot], None]) -> JobReport:
        objects = open_objects(self.settings.store)
        store = PromptStore(objects)
        registry = Registry(self.settings.tracking_uri, self.settings.artifact_location)
        recorder = Recorder(registry, store, self.settings.spool)
        specs = [task.spec for task in self.plan.tasks]
        spec_of = {spec.name: spec for spec in specs}
        warnings: dict[str, tuple[str, ...]] = {}
        runs: list[TuningRun] = []
        # Unless the run comes to its end, nobody waits for its records: the spool keeps them.
        farewell_s = MAX_FAREWELL_S
        has_begun = False

        def handle(events: Sequence[Event]) -> None:
            nonlocal has_begun
            folder.log(events)
            warnings.update(_warnings(events))
            runs.extend(_runs(events))
            has_begun = has_begun or bool(events)
            # Before work has begun, workers that start beside the driver need its cores more than records do.
            if has_begun:
                recorder.handle(_with_parameters(events, spec_of))

        def show(snapshot: Snapshot) -> None:
            folder.show(snapshot)
            on_progress(snapshot)

        try:
            recorder.replay()
            summary = run_tasks(
                [task.spec for task in self.plan.to_tune],
                backbone=self.backbone,
                store_url=self.settings.store,
                settings=self.settings,
                pool=self.manifest.pool,
                on_events=handle,
                on_progress=show,
                requests=folder.requests,
                run=run,
            )
            if not summary.is_interrupted:
                farewell_s = math.inf
                _reconcile(recorder, store, specs)
        finally:
            backlog = recorder.close(farewell_s)
            _remember(RunStats(objects), self.plan.backbone_fingerprint, runs)
        return JobReport(
            reused=tuple(task.spec.name for task in self.plan.to_reuse),
            summary=summary,
            backlog=backlog,
            warnings=warnings,
            refused=self.plan.refused,
        )


def prepare_job(
    manifest_path: str,
    make_settings: Callable[[str | None], Settings],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    request: Request | None = None,
    *,
    will_run: bool = False,
) -> Job:
    """Check the manifest whole and plan it. Nothing is written.

    The store is asked for one listing and one object, however many tasks there are.

    Args:
        manifest_path: File.
        make_settings: Gives the settings for the store that the manifest names, if any.
        on_progress: Gets the number of tasks whose data was looked at, and of all.
        request: What is asked of the manifest; by default all of it.
        will_run: Whether it is to be run: what is certainly more than was meant is then refused before data
            is read, which can take long.

    Raises:
        ManifestError: Lists every problem of the manifest, of the data, or of what is asked for.
        BackboneError: The backbone cannot be loaded.
    """
    request = request or Request()
    manifest = request.load(manifest_path)
    settings = make_settings(manifest.store)
    backbone = load_backbone(manifest.backbone)
    objects = open_objects(settings.store)
    published = PromptStore(objects).published_keys()
    # With keep_going, some tasks may turn out broken and not be tuned.
    if will_run and not request.keep_going:
        _refuse_fan_out(find_sure_fan_out(manifest, published, _max_tasks(request, manifest)))
    runs, warnings = _recall(RunStats(objects), backbone.fingerprint)
    plan = make_plan(
        manifest,
        backbone=backbone.info,
        published=published,
        speed=learn_speed(runs),
        keep_going=request.keep_going,
        num_workers=manifest.pool.max_workers,
        now_s=time.time(),
        on_progress=on_progress,
    )
    fan_out = plan.find_fan_out(_max_tasks(request, manifest))
    plan = replace(plan, warnings=(*warnings, *([fan_out] if fan_out else ()), *plan.warnings))
    return Job(
        manifest=manifest,
        plan=plan,
        settings=settings,
        backbone=backbone,
        request=request,
        path=manifest_path,
    )


def _max_tasks(request: Request, manifest: Manifest) -> int:
    return request.max_tasks or manifest.max_tasks or DEFAULT_MAX_TASKS


def _refuse_fan_out(problem: str | None) -> None:
    if problem is not None:
        raise ManifestError(f"{problem}; nothing was started")


def _recall(stats: RunStats, backbone_fingerprint: str) -> tuple[Sequence[TuningRun], Sequence[str]]:
    """Past tunings; and, if the record is of no use, a warning that says so."""
    try:
        return stats.read(backbone_fingerprint), ()
    except StoreError as error:
        return (), (f"past tunings cannot be read: {error}",)


def _reconcile(recorder: Recorder, store: PromptStore, specs: Sequence[TaskSpec]) -> None:
    """Heal what a lost driver or a lost spool left unrecorded; with nothing to heal it is one look."""
    try:
        recorder.reconcile(store.find_published([(spec.name, spec.key) for spec in specs]), specs)
    except StoreError as error:
        # The run is over, and how it went has yet to be told.
        logger.warning(
            "the next run will look for what is not recorded, as the store does not answer: %s", error
        )


def _remember(stats: RunStats, backbone_fingerprint: str, runs: Sequence[TuningRun]) -> None:
    try:
        stats.add(backbone_fingerprint, runs)
    except StoreError as error:
        # Later estimates are the poorer for it; what was tuned is not.
        logger.warning("what tuning took was not recorded: %s", error)


def _runs(events: Sequence[Event]) -> list[TuningRun]:
    found = [
        TuningRun.from_metrics(event.key, event.data.get("metrics", {}), event.time_s)
        for event in events
        if event.kind == "published"
    ]
    return [run for run in found if run is not None]


def _warnings(events: Sequence[Event]) -> dict[str, tuple[str, ...]]:
    found = {
        event.task: tuple(find_warnings(event.data.get("metrics", {})))
        for event in events
        if event.kind == "published"
    }
    return {task: warnings for task, warnings in found.items() if warnings}


def _with_parameters(events: Sequence[Event], spec_of: Mapping[str, TaskSpec]) -> list[Event]:
    """Tell the record of a task that is taken up what it is tuned with, in case it fails."""
    return [
        replace(event, data={**event.data, "params": _parameters(spec_of[event.task])})
        if event.kind == "leased"
        else event
        for event in events
    ]


def _parameters(spec: TaskSpec) -> dict[str, str]:
    # What is searched is known once the task is done; a parameter of a run cannot be changed.
    searched = [axis for axis in AXES if spec.search is not None and getattr(spec.search, axis)]
    settings = {name: str(value) for name, value in spec.config.to_dict().items() if name not in searched}
    return {**settings, "data": spec.source.path}
