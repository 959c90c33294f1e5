"""The main job from manifest to registry: check, plan, tune what is missing, record, report.

Composes the parts and owns their order. Each can be read and tested without this file.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from orchestrator.errors import ManifestError, RegistryError, StoreError
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.request import Request
from orchestrator.planning.estimates import TuningRun, learn_speed
from orchestrator.planning.plan import DEFAULT_MAX_TASKS, Plan, find_sure_fan_out, make_plan
from orchestrator.planning.spec import PlannedTask, TaskSpec
from orchestrator.registry.record_writer import Redecision
from orchestrator.registry.recorder import MAX_FAREWELL_S, Backlog, Recorder
from orchestrator.registry.registry import Registry
from orchestrator.settings import Settings
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.backbones import load_backbone_of
from orchestrator.store.documents.audit import Author
from orchestrator.store.objects.open import ObjectStore, open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.run_stats import RunStats
from orchestrator.tracing import note, span
from orchestrator.train.event_handler import EventHandler
from orchestrator.train.executor import Callbacks, RunOptions, RunSummary, name_run, run_tasks
from orchestrator.train.job_report import JobReport
from orchestrator.train.ledger.status import RunStatus
from orchestrator.train.lineage import find_lineage
from orchestrator.train.pool.size import expect_workers
from orchestrator.train.preflight import check_before_tuning
from orchestrator.train.run.folder import KEPT_RUNS, RunFolder, hold_run
from orchestrator.train.run.plan import plan_values
from orchestrator.train.run.report import leave_report
from orchestrator.train.standing import find_standings
from orchestrator.train.verdicts import Decisions, Published, failed_verdicts, find_verdicts
from ship.backbone import Backbone
from ship.redaction import redact_url

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
        promotes: Whether the gate decides again on what is in the store while another version serves.
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
    promotes: bool = False

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
        note({"ship.run": run})
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
        folder.plan(plan_values(self.plan, self.num_workers))
        lineage = find_lineage(run, self.path, self.manifest, self.backbone)
        handler = EventHandler(
            folder, recorder, [task.spec for task in self.plan.tasks], lineage, self.read_s
        )

        def show(status: RunStatus) -> None:
            folder.show(status)
            on_progress(status)

        # The records of a run that is broken off wait in the spool.
        farewell_s = MAX_FAREWELL_S
        found: Sequence[Published] = ()
        decided: Sequence[Redecision] = ()
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
                decided = self._decide_again() if self.promotes else ()
        finally:
            backlog = recorder.close(farewell_s)
            self._remember(handler.runs)
        return self._report(folder, handler, summary, backlog, found, decided)

    def _report(
        self,
        folder: RunFolder,
        handler: EventHandler,
        summary: RunSummary,
        backlog: Backlog,
        found: Sequence[Published],
        decided: Sequence[Redecision],
    ) -> JobReport:
        """The report on a run that is over, which it leaves in the run's folder."""
        verdicts = find_verdicts(self.services.registry, [*handler.published, *found])
        report = JobReport(
            reused=tuple(task.spec.name for task in self.plan.to_reuse),
            summary=summary,
            backlog=backlog,
            warnings=handler.warnings,
            refused=self.plan.refused,
            verdicts=(*verdicts, *failed_verdicts(summary.failed)),
            decided=tuple(decided),
        )
        about = {
            "name": folder.folder.name,
            "manifest": redact_url(self.path),
            "backbone": self.plan.backbone,
        }
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

    def _decide_again(self) -> Sequence[Redecision]:
        """The gate's decisions on what is in the store while another version of its task serves."""
        specs = {task.spec.name: task.spec for task in self.plan.to_reuse}
        self.services.recorder.drain(MAX_FAREWELL_S)
        keys = [(spec.name, spec.key) for spec in specs.values()]
        decided = []
        for task, standing in find_standings(self.services.registry, keys).items():
            if standing.serves:
                continue
            try:
                decided.append(self.services.recorder.decide_again(specs[task]))
            except (RegistryError, StoreError) as error:
                # What serves goes on, and the same command asks again.
                logger.warning("version %d of task %s was not promoted: %s", standing.version, task, error)
        return decided

    def _remember(self, runs: Sequence[TuningRun]) -> None:
        try:
            self.services.stats.add(self.plan.backbone_fingerprint, runs)
        except StoreError as error:
            # It costs the accuracy of later estimates only.
            logger.warning("durations of tunings were not recorded: %s", error)


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

    The store is asked for one listing and one object, however many tasks there are, and the registry for its
    tasks; for all versions only if one that is in the store does not serve.

    Args:
        manifest_path: Path of the manifest.
        make_settings: Makes the settings for the store that the manifest names, if any.
        on_progress: Gets the number of tasks whose data was checked, and of all tasks.
        request: Choice of tasks and limits; by default all tasks.
        will_run: Whether it is to be run: places are tried, and too many tasks refused, before data is read.
        open_services: Opens the services that the job depends on.

    Raises:
        ManifestError: Lists every problem of the manifest, of the data, or of what is asked for.
        ExecutionError: Lists every place that cannot be written to, and address that nothing answers at.
        BackboneError: The backbone cannot be loaded.
    """
    request, read_s = request or Request(), time.time()
    manifest = request.load(manifest_path)
    settings, backbone = _find_means(manifest, make_settings, will_run)
    services = open_services(settings)
    with span("plan", {"ship.tasks": len(manifest.tasks)}):
        plan = _make_plan(manifest, backbone, services, request, will_run, on_progress)
        note({"ship.to_tune": len(plan.to_tune)})
    return Job(
        manifest=manifest,
        plan=plan,
        settings=settings,
        backbone=backbone,
        request=request,
        path=manifest_path,
        services=services,
        read_s=read_s,
    )


def _find_means(
    manifest: Manifest, make_settings: Callable[[str | None], Settings], will_run: bool
) -> tuple[Settings, Backbone]:
    """The settings and the backbone of a manifest, whose places are tried first if it is to be run."""
    settings = make_settings(manifest.store)
    if will_run:
        check_before_tuning(settings, partial(open_objects, settings.store))
    return settings, load_backbone_of(manifest.backbone, settings.store, image_size=manifest.image_size)


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
    tasks = _beside_champions(plan.tasks, services.registry)
    return replace(plan, tasks=tasks, warnings=(*warnings, *plan.warnings))


def _beside_champions(tasks: Sequence[PlannedTask], registry: Decisions) -> tuple[PlannedTask, ...]:
    """The planned tasks, those to reuse with the version that they are, and the one that serves."""
    keys = [(task.spec.name, task.spec.key) for task in tasks if task.action == "reuse"]
    standings = find_standings(registry, keys)
    return tuple(
        task
        if (found := standings.get(task.spec.name)) is None
        else replace(task, version=found.version, champion=found.champion)
        for task in tasks
    )


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
