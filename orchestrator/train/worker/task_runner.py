"""The task runner: loads a task's data, tunes it from its last snapshot, and publishes the artifact.

A task is done when its key is published in the store, whatever the ledger's state: the store is asked first.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import StoreError, StoreFull
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.tracing import Laps, note, span
from orchestrator.train.worker.data_cache import DataCache
from orchestrator.train.worker.loop import Hooks, PublishedTask, TaskRunner, WorkerContext
from orchestrator.train.worker.snapshot_writer import SnapshotWriter
from ship.artifact.card import CARD, PromptCard
from ship.artifact.making import make_artifact
from ship.backbone import Backbone
from ship.data import load_task_data
from ship.errors import ArtifactError, DataError
from ship.settings.view import MAX_PIXELS
from ship.tuning.kept_search import search_from_note, search_to_note
from ship.tuning.probe_instead import take_the_better
from ship.tuning.run import EpochReport, PackTask
from ship.tuning.search import SearchResult, SearchStep, search
from ship.tuning.state import TuningState
from ship.tuning.tuner import Tuner

if TYPE_CHECKING:
    from orchestrator.planning.spec import TaskSpec
    from orchestrator.store.documents.publication import Publication
    from ship.data import TaskData
    from ship.settings.config import TuneConfig
    from ship.tuning.run import TuneResult

__all__ = ["SearchReporter", "TuneTask", "make_task_runner"]

logger = logging.getLogger(__name__)

_NOT_KEPT = (
    "The settings were chosen before the tuning was interrupted; what they were compared with is not known."
)


def make_task_runner(context: WorkerContext) -> TaskRunner:
    """Build the runner of a worker, for all of its tasks."""
    backbone = Backbone.from_arrays(context.header, context.arrays, device=context.device)
    tuner = Tuner(backbone, max_fused=context.max_fused, memory_bytes=context.memory_bytes)
    cache = DataCache(context.cache, context.cache_bytes)
    return TuneTask(tuner, PromptStore(open_objects(context.store_url)), cache, context.max_pixels)


class TuneTask:
    """Tunes and publishes tasks on one backbone; thread-safe.

    Args:
        tuner: Tuner of the device.
        store: Store of artifacts and snapshots.
        cache: Cache of decoded data, if any.
        max_pixels: Pixels of a picture; one with more is refused.
    """

    def __init__(
        self,
        tuner: Tuner,
        store: PromptStore,
        cache: DataCache | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._tuner, self._backbone = tuner, tuner.backbone
        self._store = store
        self._cache, self._max_pixels = cache, max_pixels

    def __call__(self, spec: "TaskSpec", hooks: Hooks) -> PublishedTask:
        """Tune and publish a task, unless it is published already.

        Raises:
            LeaseLost: Another worker has the task by now.
            ShipError: The task failed.
        """
        with hooks.doing(self._store.url):
            if (earlier := self._store.published(spec.name, spec.key)) is not None:
                # Whoever published it may have died before the snapshot was dropped.
                self._store.drop_snapshot(spec.name, spec.key)
                note({"ship.digest": earlier.digest})
                return _outcome(earlier, self._store.fetch(earlier.digest))
        hooks.enter("data")
        with span("load data", {"ship.images": spec.num_images}):
            data = self._load(spec, hooks)
        # A thread that hung meanwhile may not join the pack of a worker that has gone on without it.
        hooks.check()
        # `patience` needs validation images to the end; else they are trained on once they have chosen.
        merged = data if spec.config.patience else data.merged()
        with span("tune"):
            result, found = self._tune(spec, data, merged, hooks)
        hooks.enter("step", lambda: self._tuner.num_passes)
        result = take_the_better(result, merged, partial(self._tune_probe, merged))
        files = self._tuner.run(
            lambda: make_artifact(
                spec.name,
                self._backbone,
                merged,
                result,
                found,
                task_key=spec.key,
                thumbnails=spec.thumbnails,
            )
        )
        hooks.check()
        hooks.enter("store")
        with span("publish"):
            publication = self._store.publish(spec.name, spec.key, files, watch=hooks.doing)
        note({"ship.digest": publication.digest})
        # If another worker has published in the meantime, its artifact counts.
        return _outcome(publication, files if publication.created else self._store.fetch(publication.digest))

    def _load(self, spec: "TaskSpec", hooks: Hooks) -> "TaskData":
        size, interpolation = self._backbone.image_size, self._backbone.interpolation
        read = partial(
            load_task_data,
            spec.source,
            image_size=size,
            interpolation=interpolation,
            view=spec.view,
            max_pixels=self._max_pixels,
            watch=hooks.doing,
        )
        data = (
            read()
            if self._cache is None
            else self._cache.load(
                spec.data_fingerprint,
                size,
                interpolation,
                read,
                spec.view,
                allow_duplicates=spec.source.allow_duplicates,
                watch=hooks.doing,
            )
        )
        if data.fingerprint != spec.data_fingerprint:
            raise DataError(
                f"{spec.source.path}: the data changed after the tasks were planned (fingerprint "
                f"{data.fingerprint[:12]}, planned {spec.data_fingerprint[:12]}); run the command again"
            )
        return data

    def _tune(
        self, spec: "TaskSpec", data: "TaskData", merged: "TaskData", hooks: Hooks
    ) -> tuple["TuneResult", SearchResult]:
        """Tune from the last snapshot; from the start if there is none that can be used.

        A snapshot has what a search found, so that the search is not repeated, and the artifact tells of it.

        Args:
            spec: The task.
            data: Data to choose settings by.
            merged: Data to tune the chosen settings with.
            hooks: Callbacks.
        """
        hooks.enter("store")
        with hooks.doing(self._store.url):
            snapshot = self._store.snapshots.load(spec.name, spec.key)
        hooks.enter("step", lambda: self._tuner.num_passes)
        if snapshot is not None:
            try:
                found = _found_of(spec, snapshot)
                return self._tune_from(spec, found, merged, hooks, snapshot), found
            except ArtifactError as error:
                logger.warning("task %s: %s", spec.name, error)
                self._store.snapshots.drop(spec.name, spec.key)
        found = search(
            self._backbone,
            data,
            spec.config,
            spec.search,
            on_epoch=SearchReporter(hooks),
            tune_all=partial(self._tuner.tune, on_joined=hooks.started),
        )
        return self._tune_from(spec, found, merged, hooks, None), found

    def _tune_from(
        self,
        spec: "TaskSpec",
        found: SearchResult,
        data: "TaskData",
        hooks: Hooks,
        snapshot: bytes | None,
    ) -> "TuneResult":
        def save(content: bytes) -> None:
            # During a slow write the lease may be lost to a worker with snapshots of its own.
            hooks.check()
            try:
                with hooks.doing(f"{self._store.url}/snapshots/{spec.name}"):
                    self._store.snapshots.save(spec.name, spec.key, content)
            except StoreFull:
                # There is no room for the artifact either: fail before the other epochs are tuned.
                raise
            except StoreError as error:
                # A snapshot only saves time if this worker dies; publishing fails if the store is down.
                logger.warning("task %s: snapshot not saved: %s", spec.name, error)

        def put(content: bytes) -> None:
            hooks.check()
            writer.put(content)

        epochs = Laps("epoch")

        def report_epoch(report: EpochReport) -> None:
            epochs.end({"ship.epoch": report.epoch, "ship.loss": report.loss})
            hooks.epoch(_event_data(report))

        with SnapshotWriter(save) as writer:
            task = PackTask(
                data=data,
                config=found.config,
                on_epoch=report_epoch,
                resume=snapshot,
                on_snapshot=put,
                note=search_to_note(found),
            )
            [outcome] = self._tuner.tune([task], on_joined=hooks.started)
            # The writer ends once the snapshot under way is written.
            hooks.enter("store")
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    def _tune_probe(self, data: "TaskData", config: "TuneConfig") -> "TuneResult":
        [outcome] = self._tuner.tune([PackTask(data=data, config=config)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class SearchReporter:
    """Reports the steps of a search, at most a hundred and the start of each round; each report is a call.

    Args:
        hooks: Callbacks of the task.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._percent = 0

    def __call__(self, step: SearchStep) -> None:
        """Report a step if there is news. Raises ``LeaseLost``."""
        self._hooks.check()
        percent = 100 * step.epoch // max(step.num_epochs, 1)
        if step.is_new_round or percent != self._percent:
            self._percent = percent
            self._hooks.search(asdict(step))


def _outcome(publication: "Publication", files: Mapping[str, bytes]) -> PublishedTask:
    return PublishedTask(
        digest=publication.digest,
        uri=publication.uri,
        metrics=PromptCard.from_json(files[CARD]).metrics,
        created=publication.created,
    )


def _found_of(spec: "TaskSpec", snapshot: bytes) -> SearchResult:
    """What the search found whose settings a snapshot is of; one of an earlier version has these alone.

    Raises:
        ArtifactError: The snapshot is of no use.
    """
    config = _config_of(spec, snapshot)
    if (text := TuningState.note_of(snapshot)) is not None:
        try:
            return search_from_note(text, config)
        except ArtifactError as error:
            logger.warning("task %s: %s; the tuning goes on, and its record lacks that", spec.name, error)
    if spec.search is None and not config.fallback:
        return SearchResult(config=config)
    return SearchResult(config=config, reason=_NOT_KEPT, num_passes=None)


def _config_of(spec: "TaskSpec", snapshot: bytes) -> "TuneConfig":
    if spec.search is None:
        return spec.config
    config = TuningState.config_of(snapshot)
    if config not in spec.search.candidates(spec.config, config.head):
        raise ArtifactError("snapshot: its settings are not among those of the search; the task starts over")
    return config


def _event_data(report: EpochReport) -> dict[str, Any]:
    return {
        "epoch": report.epoch,
        "num_epochs": report.num_epochs,
        "loss": report.loss,
        "matching_loss": report.matching_loss,
        "train_accuracy": report.train_accuracy,
        "val_accuracy": report.val_accuracy,
        "val_loss": report.val_loss,
        "lr": report.learning_rate,
    }
