"""A manifest beside a backbone and a data set, with services that stand in for the pool and MLflow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ExecutionError, RegistryError
from orchestrator.events import Event
from orchestrator.manifest.model import PoolSettings
from orchestrator.manifest.request import Request
from orchestrator.planning.spec import TaskSpec
from orchestrator.registry.record_writer import Redecision
from orchestrator.registry.recorder import Backlog
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.train.executor import Callbacks, RunOptions, RunSummary
from orchestrator.train.job import Job, Services, prepare_job
from orchestrator.train.ledger.status import TaskStatus
from ship.backbone import Backbone

if TYPE_CHECKING:
    from orchestrator.train.verdicts import Decisions

__all__ = ["Plant", "rows"]


@dataclass
class FakePool:
    """Stands in for ``run_tasks``: every task is published at once."""

    tuning_s: float = 2.0
    asked: list[str] = field(default_factory=list)
    settings: PoolSettings = field(default_factory=PoolSettings)
    error: ExecutionError | None = None

    def __call__(
        self,
        specs: Sequence[TaskSpec],
        backbone: Backbone,
        settings: Settings,
        options: RunOptions,
        callbacks: Callbacks,
    ) -> RunSummary:
        self.asked, self.settings = [spec.name for spec in specs], options.pool
        # Nothing has happened while the workers start.
        callbacks.on_events(())
        for spec in specs:
            metrics = {"num_train": spec.num_images, "epochs": spec.config.epochs, "tuning_s": self.tuning_s}
            data = {"digest": "0" * 64, "metrics": metrics}
            callbacks.on_events(
                [Event(kind="published", task=spec.name, key=spec.key, attempt=1, time_s=5.0, data=data)]
            )
        if self.error is not None:
            raise self.error
        return RunSummary(
            tasks=tuple(TaskStatus(task=spec.name, key=spec.key, state="done") for spec in specs)
        )


class FakeRecorder:
    """Takes everything and records nothing."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.decided: list[str] = []
        self.error: RegistryError | None = None

    def replay(self) -> None:
        pass

    def handle(self, events: Sequence[Event]) -> None:
        self.handled.append(len(events))

    def reconcile(self, published: object, specs: object, read_s: float) -> None:
        pass

    def drain(self, limit_s: float) -> None:
        pass

    def decide_again(self, spec: TaskSpec) -> Redecision:
        if self.error is not None:
            raise self.error
        self.decided.append(spec.name)
        return Redecision(task=spec.name, version=1, promoted=True, reason="No worse.")

    def close(self, limit_s: float) -> Backlog:
        return Backlog(num_records=0, folder=Path("spool"))


class Plant:
    """A manifest beside a backbone and a data set, and the services that its jobs work with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.objects = open_objects(str(self.home / "store"))
        self.recorder = FakeRecorder()
        self.pool = FakePool()
        self.run_tasks: Callable[..., RunSummary] = self.pool
        self.registry: Decisions | None = None

    def open_services(self, settings: Settings) -> Services:
        services = Services.open(settings, self.objects)
        registry = self.registry or services.registry
        return replace(services, recorder=self.recorder, run_tasks=self.run_tasks, registry=registry)

    def prepare(self, tasks: str, *, will_run: bool = False, **request: Any) -> Job:
        path = self.folder / "manifest.yaml"
        path.write_text(f"backbone: ./backbone\ndefaults: {{epochs: 3}}\n{tasks}")
        return prepare_job(
            str(path),
            lambda store: Settings.from_env({}, home=str(self.home), store=store),
            request=Request(**request),
            will_run=will_run,
            open_services=self.open_services,
        )


def rows(num_tasks: int) -> str:
    lines = "".join(f"- {{name: t{number}, data: stripes}}\n" for number in range(num_tasks))
    return f"tasks:\n{lines}"
