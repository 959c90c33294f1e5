"""The main job from manifest to registry: check, plan, tune what is missing, record, report.

Composes the parts and owns their order. Each can be read and tested without this file.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from orchestrator.errors import ManifestError, StoreError
from orchestrator.events import Event
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.request import Request
from orchestrator.planning.estimates import TuningRun, learn_speed
from orchestrator.planning.plan import DEFAULT_MAX_TASKS, Plan, find_sure_fan_out, make_plan
from orchestrator.planning.spec import TaskSpec
from orchestrator.registry.recorder import MAX_FAREWELL_S, Recorder
from orchestrator.registry.registry import Registry
from orchestrator.settings import Settings
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.objects.open import ObjectStore, open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.run_stats import RunStats
from orchestrator.train.executor import Callbacks, RunOptions, RunSummary, name_run, run_tasks
from orchestrator.train.job_report import JobReport
from orchestrator.train.ledger.status import RunStatus
from orchestrator.train.lineage import find_lineage
from orchestrator.train.pool.size import expect_workers
from orchestrator.train.preflight import check_before_tuning
from orchestrator.train.run_folder import KEPT_RUNS, RunFolder, hold_run
from orchestrator.train.run_report import leave_report
from orchestrator.train.verdicts import Decisions, Published, failed_verdicts, find_verdicts
from ship.backbone import Backbone, load_backbone
from ship.findings import find_warnings
from ship.redaction import redact_url, redact_values
from ship.settings.search_config import AXES

__all__ = ["Job", "Services", "prepare_job"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Services:
    """Services that a job depends on.

    Attributes:
        store: Store of prompts.
        stats: Record of past tunings.
        recorder: Writer of records to MLflow.
        registry: Reader of the gate's decisions; makes no database.
        run_tasks: Tunes tasks; ``executor.run_tasks``.
    """

    store: PromptStore
    stats: RunStats
    recorder: Recorder
    registry: Decisions
    run_tasks: Callable[[Sequence[TaskSpec], Backbone, Settings, RunOptions, Callbacks], RunSummary]

    @classmethod
    def open(cls, settings: Settings, objects: ObjectStore | None = None) -> Self:
        """Open the services that the settings name, without a write or a request to MLflow."""
        objects = objects or open_objects(settings.store)
        store = PromptStore(objects)
        registry = Registry(settings.tracking_uri, settings.artifact_location, may_create=True)
        return cls(
            store=store,
            stats=RunStats(objects),
            recorder=Recorder(registry, store, settings.spool),
            registry=Registry(settings.tracking_uri, settings.artifact_location),
            run_tasks=run_tasks,
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A valid manifest with its plan, ready to run.

    Attributes:
        manifest: The manifest, with the requested tasks only.
        plan: Tasks to tune, to reuse and to refuse.
        settings: Settings, with the manifest's store.
        backbone: The loaded backbone.
        request: The user's choices.
        path: Path of the manifest.
        services: Services that it depends on.
        num_kept: Runs whose folders stay in the home, this one among them.
        read_s: When the manifest was read, seconds since the epoch.
    """

    manifest: Manifest
    plan: Plan
    settings: Settings
    backbone: Backbone
    request: Request
    path: str
    services: Services
    num_kept: int = KEPT_RUNS
    read_s: float = 0.0

    def check_fan_out(self) -> None:
        """Check that no more tasks would be tuned than allowed.

        Raises:
            ManifestError: More tasks would be tuned than the request, the manifest or the default allows.
        """
        _refuse_fan_out(self.plan.find_fan_out(_max_tasks(self.request, self.manifest)))

    @property
    def num_workers(self) -> int | None:
        """Workers that the run would have at most; None if the cluster that it joins decides that."""
        return expect_workers(len(self.plan.to_tune), self.manifest.pool, self.settings.ray_address)

    def run(
        self,
        *,
        on_progress: Callable[[RunStatus], None] = lambda status: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> JobReport:
        """Tune the missing tasks, and record all published ones.

        Args:
            on_progress: Gets the status of all tasks about twice a second.
            on_stop: Called in the handler of the first signal, which stops the run.

        Raises:
            ManifestError: More tasks would be tuned than allowed; nothing was written.
            ExecutionError: Another run holds this home, or the worker pool cannot go on. Published tasks stay
                published.
        """
        self.check_fan_out()
        run = name_run()
        with hold_run(self.settings.home, run, self.path, self.num_kept) as folder:
            return self._run(run, folder, on_progress, on_stop)

    def _run(
        self,
        run: str,
        folder: RunFolder,
        on_progress: Callable[[RunStatus], None],
        on_stop: Callable[[], None],
    ) -> JobReport:
        recorder = self.services.recorder
        lineage = find_lineage(run, self.path, self.manifest, self.backbone)
        handler = _EventHandler(
            folder, recorder, [task.spec for task in self.plan.tasks], lineage, self.read_s
        )

        def show(status: RunStatus) -> None:
            folder.show(status)
            on_progress(status)

        # The records of a run that is broken off wait in the spool.
        farewell_s = MAX_FAREWELL_S
        found: Sequence[Published] = ()
        try:
            self._follow_approvals()
            recorder.replay()
            summary = self.services.run_tasks(
                [task.spec for task in self.plan.to_tune],
                self.backbone,
                self.settings,
                RunOptions(run=run, pool=self.manifest.pool),
                Callbacks(
                    on_events=handler.handle, on_progress=show, requests=folder.requests, on_stop=on_stop
                ),
            )
            if not summary.is_interrupted:
                farewell_s = math.inf
                found = self._reconcile()
        finally:
            backlog = recorder.close(farewell_s)
            self._remember(handler.runs)
        report = JobReport(
            reused=tuple(task.spec.name for task in self.plan.to_reuse),
            summary=summary,
            backlog=backlog,
            warnings=handler.warnings,
            refused=self.plan.refused,
            verdicts=(
                *find_verdicts(self.services.registry, [*handler.published, *found]),
                *failed_verdicts(summary.failed),
            ),
        )
        about = {"name": run, "manifest": redact_url(self.path), "backbone": self.plan.backbone}
        return leave_report(folder.folder, about, report, self.services.store, self.plan.warnings)

    def _follow_approvals(self) -> None:
        """Let the store know which tasks need an approval by this manifest, before any can be promoted."""
        store = self.services.store
        needed = {task.spec.name: task.spec.terms.approvals > 0 for task in self.plan.tasks}
        author = Author.of_process(f"ship tune {os.path.basename(self.path)}")
        Approvals(store, AuditLog(store)).follow_manifest(needed, author)

    def _reconcile(self) -> Sequence[Published]:
        """Record published tasks that a lost driver or a lost spool left unrecorded.

        Returns:
            The tasks that were not to be tuned, as they are in the store.
        """
        digests: dict[str, str] = {}
        specs = [task.spec for task in self.plan.tasks]
        try:
            published = self.services.store.find_published([(spec.name, spec.key) for spec in specs])
            digests = {task: found.digest for (task, _), found in published.items()}
            self.services.recorder.reconcile(published, specs, self.read_s)
        except StoreError as error:
            # The run is over, and its report is still due.
            logger.warning(
                "publications were not compared with MLflow, as the store failed: %s; the next run does it",
                error,
            )
        return [
            Published(task=task.spec.name, digest=digests.get(task.spec.name)) for task in self.plan.to_reuse
        ]

    def _remember(self, runs: Sequence[TuningRun]) -> None:
        try:
            self.services.stats.add(self.plan.backbone_fingerprint, runs)
        except StoreError as error:
            # It costs the accuracy of later estimates only.
            logger.warning("durations of tunings were not recorded: %s", error)


class _EventHandler:
    """Passes the events of a run on to its log and to MLflow, and collects the report's warnings.

    Attributes:
        warnings: Warnings about prompts, by task.
        runs: Duration of each tuning.
        published: Artifacts of the tasks that were tuned.
    """

    def __init__(
        self,
        folder: RunFolder,
        recorder: Recorder,
        specs: Sequence[TaskSpec],
        lineage: Mapping[str, str],
        read_s: float,
    ) -> None:
        self._folder, self._recorder = folder, recorder
        self._lineage, self._read_s = lineage, read_s
        self._spec_of = {spec.name: spec for spec in specs}
        self._has_begun = False
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.runs: list[TuningRun] = []
        self.published: list[Published] = []

    def handle(self, events: Sequence[Event]) -> None:
        self._folder.log(events)
        for event in events:
            if event.kind == "published":
                self._note(event)
        self._has_begun = self._has_begun or bool(events)
        # Before work has begun, workers that start beside the driver need its cores more than records do.
        if self._has_begun:
            told = [event for event in events if event.kind != "search"]
            self._recorder.handle([self._with_origin(event) for event in told])

    def _note(self, event: Event) -> None:
        metrics = event.data.get("metrics", {})
        digest = event.data.get("digest")
        self.published.append(Published(task=event.task, digest=digest, metrics=metrics, is_new=True))
        if found := find_warnings(metrics):
            self.warnings[event.task] = tuple(found)
        if (run := TuningRun.from_metrics(event.key, metrics, event.time_s)) is not None:
            self.runs.append(run)

    def _with_origin(self, event: Event) -> Event:
        """Add tags to an event, and settings, data and lineage to that of a leased task, which may fail."""
        if event.kind not in ("leased", "published"):
            return event
        spec = self._spec_of[event.task]
        origin: dict[str, Any] = {"tags": redact_values(dict(spec.tags))}
        if event.kind == "published":
            origin |= {"tagged_s": self._read_s}
        else:
            origin |= {
                "params": _parameters(spec),
                "lineage": self._lineage,
                "data_set": {
                    "fingerprint": spec.data_fingerprint,
                    "source": str(spec.source.path),
                    "num_images": spec.num_images,
                },
            }
        return replace(event, data={**event.data, **origin})


def prepare_job(
    manifest_path: str,
    make_settings: Callable[[str | None], Settings],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    request: Request | None = None,
    *,
    will_run: bool = False,
    open_services: Callable[[Settings], Services] = Services.open,
) -> Job:
    """Check the manifest whole and plan it. Nothing is written.

    The store is asked for one listing and one object, however many tasks there are.

    Args:
        manifest_path: Path of the manifest.
        make_settings: Makes the settings for the store that the manifest names, if any.
        on_progress: Gets the number of tasks whose data was checked, and of all tasks.
        request: Choice of tasks and limits; by default all tasks.
        will_run: Whether the job is to be run: too many tasks are then refused before data is read, where
            that is certain.
        open_services: Opens the services that the job depends on.

    Raises:
        ManifestError: Lists every problem of the manifest, of the data, or of what is asked for.
        BackboneError: The backbone cannot be loaded.
    """
    request = request or Request()
    read_s = time.time()
    manifest = request.load(manifest_path)
    settings = make_settings(manifest.store)
    if will_run:
        check_before_tuning(settings, partial(open_objects, settings.store))
    backbone = load_backbone(manifest.backbone, image_size=manifest.image_size)
    services = open_services(settings)
    return Job(
        manifest=manifest,
        plan=_make_plan(manifest, backbone, services, request, will_run, on_progress),
        settings=settings,
        backbone=backbone,
        request=request,
        path=manifest_path,
        services=services,
        read_s=read_s,
    )


def _make_plan(
    manifest: Manifest,
    backbone: Backbone,
    services: Services,
    request: Request,
    will_run: bool,
    on_progress: Callable[[int, int], None],
) -> Plan:
    published = services.store.published_keys()
    max_tasks = _max_tasks(request, manifest)
    # With keep_going, some tasks may turn out broken and not be tuned.
    if will_run and not request.keep_going:
        _refuse_fan_out(find_sure_fan_out(manifest, published, max_tasks))
    runs, warnings = _recall(services.stats, backbone.fingerprint)
    plan = make_plan(
        manifest,
        backbone=backbone.info,
        published=published,
        speed=learn_speed(runs),
        keep_going=request.keep_going,
        now_s=time.time(),
        on_progress=on_progress,
    )
    if (fan_out := plan.find_fan_out(max_tasks)) is not None:
        warnings = (*warnings, fan_out)
    return replace(plan, warnings=(*warnings, *plan.warnings))


def _max_tasks(request: Request, manifest: Manifest) -> int:
    return request.max_tasks or manifest.max_tasks or DEFAULT_MAX_TASKS


def _refuse_fan_out(problem: str | None) -> None:
    if problem is not None:
        raise ManifestError(f"{problem}; nothing was started")


def _recall(stats: RunStats, backbone_fingerprint: str) -> tuple[Sequence[TuningRun], Sequence[str]]:
    """Past tunings; and a warning if their record cannot be read."""
    try:
        return stats.read(backbone_fingerprint), ()
    except StoreError as error:
        return (), (f"past tunings cannot be read, so nothing is estimated: {error}",)


def _parameters(spec: TaskSpec) -> dict[str, str]:
    # Searched settings are known once the task is done; a parameter of an MLflow run cannot be changed.
    searched = [axis for axis in AXES if spec.search is not None and getattr(spec.search, axis)]
    if spec.config.fallback:
        searched += ["kind", "start"]
    settings = {name: str(value) for name, value in spec.config.to_dict().items() if name not in searched}
    # Its text, which shows no password.
    return {**settings, "data": str(spec.source.path)}
