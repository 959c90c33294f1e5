"""A task runner that publishes prepared artifacts in place of tuned ones, to a store that forbids listing."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from orchestrator.planning.spec import TaskSpec
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.worker.loop import Hooks, PublishedTask, TaskRunner, WorkerContext
from ship.artifact.making import make_artifact
from ship.backbone import Backbone
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.benchmarks.synthetic import make_data

__all__ = ["make_simulated_runner"]

CARD = "prompt.json"


class UnlistedObjects(LocalObjects):
    """A store that refuses to be listed: a listing by a worker would be one for every task."""

    def list(self, prefix: str) -> None:
        raise AssertionError(f"a worker lists the store: {prefix!r}")

    scan = list


class SimulatedTuning:
    """Publishes one artifact under every task's name and key; the first task tunes it."""

    def __init__(self, backbone: Backbone, store: PromptStore) -> None:
        self._backbone, self._store = backbone, store

    def __call__(self, spec: TaskSpec, hooks: Hooks) -> PublishedTask:
        for report in json.loads(self._files["record.json"])["history"]:
            hooks.epoch({**report, "lr": report["learning_rate"]})
        card = {**json.loads(self._files[CARD]), "task": spec.name, "task_key": spec.key}
        files = {
            **self._files,
            CARD: json.dumps({**card, "data_fingerprint": spec.data_fingerprint}).encode(),
        }
        publication = self._store.publish(spec.name, spec.key, files)
        return PublishedTask(
            digest=publication.digest,
            uri=publication.uri,
            metrics=card["metrics"],
            created=publication.created,
        )

    @cached_property
    def _files(self) -> Mapping[str, bytes]:
        data = make_data(self._backbone, 8, seed=0, num_classes=2)
        num_attribute = min(10, self._backbone.info.num_tokens)
        config = TuneConfig(epochs=2, num_attribute=num_attribute, start="published")
        tuned = tune(self._backbone, data, config)
        return make_artifact("simulated", self._backbone, data, tuned)


def make_simulated_runner(context: WorkerContext) -> TaskRunner:
    """Takes the place of ``task_runner.make_task_runner``."""
    backbone = Backbone.from_arrays(context.header, context.arrays, device=context.device)
    return SimulatedTuning(backbone, PromptStore(UnlistedObjects(Path(context.store_url))))
