"""The main job from manifest to registry: check, plan, tune what is missing, record, report.

Composes the parts and owns their order. Each can be read and tested without this file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.errors import ManifestError
from orchestrator.events import Event
from orchestrator.manifest import Manifest, load_manifest
from orchestrator.plan import Plan, TaskSpec, make_plan
from orchestrator.settings import Settings
from orchestrator.store.objects import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.recorder import Backlog, Recorder
from orchestrator.store.registry import Registry
from orchestrator.train.executor import RunSummary, name_run, run_tasks
from orchestrator.train.run_folder import RunFolder, hold_run
from orchestrator.train.status import Snapshot
from ship.backbone import Backbone, load_backbone
from ship.findings import find_warnings
from ship.search import AXES

__all__ = ["Job", "JobReport", "prepare_job"]


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """How a job ended.

    Attributes:
        reused: Tasks that were published already.
        summary: Of those that were tuned.
        backlog: Records that MLflow has not taken yet.
        warnings: Task to what its owner should hear of the prompt that was tuned, for those that have any.
    """

    reused: tuple[str, ...]
    summary: RunSummary
    backlog: Backlog
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A manifest that was found sound, and what is to be done about it.

    Attributes:
        manifest: As checked.
        plan: What will be tuned and what is done already.
        settings: With the manifest's store.
        backbone: Loaded.
        path: Of the manifest.
    """

    manifest: Manifest
    plan: Plan
    settings: Settings
    backbone: Backbone
    path: str

    def run(
        self,
        *,
        num_workers: int | None = None,
        on_progress: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> JobReport:
        """Tune what is missing, and record all that is published.

        Args:
            num_workers: At most; the manifest's number if None.
            on_progress: Gets the state of all tasks about twice a second.

        Raises:
            ExecutionError: Another run is at work in this home, or the worker pool died for good. What was
                published stays.
        """
        run = name_run()
        with hold_run(self.settings.home, run, self.path) as folder:
            return self._run(run, folder, num_workers, on_progress)

    def _run(
        self,
        run: str,
        folder: RunFolder,
        num_workers: int | None,
        on_progress: Callable[[Snapshot], None],
    ) -> JobReport:
        store = PromptStore(open_objects(self.settings.store))
        registry = Registry(self.settings.tracking_uri, self.settings.artifact_location)
        recorder = Recorder(registry, store, self.settings.spool)
        specs = [task.spec for task in self.plan.tasks]
        warnings: dict[str, tuple[str, ...]] = {}

        def handle(events: Sequence[Event]) -> None:
            folder.log(events)
            warnings.update(_warnings(events))
            recorder.handle(_with_parameters(events, self.plan))

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
                num_workers=num_workers or self.manifest.workers,
                on_events=handle,
                on_progress=show,
                requests=folder.requests,
                run=run,
            )
            # Heals what a lost driver or a lost spool left unrecorded; with nothing to heal it is one look.
            wanted = [(spec.name, spec.key) for spec in specs]
            recorder.reconcile(store.find_published(wanted), specs)
        finally:
            backlog = recorder.close()
        reused = tuple(task.spec.name for task in self.plan.tasks if task.action == "reuse")
        return JobReport(reused=reused, summary=summary, backlog=backlog, warnings=warnings)


def prepare_job(
    manifest_path: str,
    make_settings: Callable[[str | None], Settings],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Job:
    """Check the manifest whole and plan it. Nothing is written.

    Args:
        manifest_path: File.
        make_settings: Gives the settings for the store that the manifest names, if any.
        on_progress: Gets the number of tasks whose data was looked at, and of all.

    Raises:
        ManifestError: Lists every problem of the manifest, or of the data.
        BackboneError: The backbone cannot be loaded.
    """
    manifest = load_manifest(manifest_path)
    settings = make_settings(manifest.store)
    if not manifest.tasks:
        raise ManifestError(f"{manifest_path}: it names no task")
    backbone = load_backbone(manifest.backbone)
    store = PromptStore(open_objects(settings.store))
    plan = make_plan(
        manifest, backbone=backbone.info, published=store.published_keys(), on_progress=on_progress
    )
    return Job(manifest=manifest, plan=plan, settings=settings, backbone=backbone, path=manifest_path)


def _warnings(events: Sequence[Event]) -> dict[str, tuple[str, ...]]:
    found = {
        event.task: tuple(find_warnings(event.data.get("metrics", {})))
        for event in events
        if event.kind == "published"
    }
    return {task: warnings for task, warnings in found.items() if warnings}


def _with_parameters(events: Sequence[Event], plan: Plan) -> list[Event]:
    """Tell the record of a task that is taken up what it is tuned with, in case it fails."""
    specs = {task.spec.name: task.spec for task in plan.to_tune}
    return [
        replace(event, data={**event.data, "params": _parameters(specs[event.task])})
        if event.kind == "leased"
        else event
        for event in events
    ]


def _parameters(spec: TaskSpec) -> dict[str, str]:
    # What is searched is known once the task is done; a parameter of a run cannot be changed.
    searched = [axis for axis in AXES if spec.search is not None and getattr(spec.search, axis)]
    settings = {name: str(value) for name, value in spec.config.to_dict().items() if name not in searched}
    return {**settings, "data": spec.source.path}
