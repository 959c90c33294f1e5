"""A store and an MLflow of one test."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from orchestrator.registry.recorder import Recorder
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import VersionInfo
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.store.factory import tune


def champions(registry: Registry) -> dict[str, VersionInfo]:
    """Champions of all tasks that have one."""
    return {found.task: found.champion for found in registry.tasks() if found.champion is not None}


class Place:
    """The store, the registry and its recorders."""

    def __init__(self, folder: Path, database: Path) -> None:
        shutil.copy(database, folder / "mlflow.db")
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.store = PromptStore(open_objects(str(folder / "store")))
        self.registry = Registry(self.uri, (folder / "artifacts").as_uri())
        self._recorders = ExitStack()

    def recorder(self, registry: Registry | None = None, **args: Any) -> Recorder:
        recorder = Recorder(registry or self.registry, self.store, self.folder / "spool", **args)
        self._recorders.callback(recorder.close)
        return recorder

    def record(self, task: str = "bolts", **artifact: Any) -> None:
        with self.recorder() as recorder:
            recorder.handle(tune(self.store, task, **artifact))

    @property
    def rollouts(self) -> Rollouts:
        """The rollouts as a new command has them."""
        return Rollouts(self.registry, self.store)

    def close(self) -> None:
        self._recorders.close()

    def state(self) -> Mapping[str, Any]:
        """All that is in this MLflow."""
        client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        runs = client.search_runs([self.registry.session.experiment_id])
        return {
            "runs": [
                (
                    dict(run.info),
                    run.data.to_dictionary(),
                    curves(client, run.info.run_id, run.data.metrics),
                )
                for run in sorted(runs, key=lambda run: run.info.run_id)
            ],
            "tasks": self.registry.tasks(),
            "versions": {info.task: self.registry.versions(info.task) for info in self.registry.tasks()},
        }


def curves(
    client: MlflowClient, run_id: str, names: Mapping[str, float]
) -> dict[str, list[tuple[int, int, float]]]:
    return {
        name: [
            (point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, name)
        ]
        for name in sorted(names)
    }
