"""MLflow runs, one for each task key: found again by their tags, never made twice, timed by what happened."""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.private_files import make_private_folder, make_private_tree
from orchestrator.registry.session import MlflowSession, RegistryDown

__all__ = ["DataSet", "Point", "RunLog", "TaskRun"]

_logger = logging.getLogger(__name__)
MAX_METRICS_A_CALL = 800
MAX_OTHERS_A_CALL = 100
# Of MLflow's column.
MAX_DATA_DIGEST = 36
KEY_TAG, TASK_TAG = "ship.key", "ship.task"
# Every epoch has one: tells which epochs a run has already.
STEP_METRIC = "loss"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric."""

    name: str
    value: float
    step: int
    time_s: float


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set that a run was trained with.

    Attributes:
        fingerprint: Fingerprint of its images and labels, 64 hex digits.
        source: Path or URL, without secrets; empty if it is not known.
        num_images: Training images; None if it is not known.
        settings: Settings of ``DataSource`` by name, without secrets; empty in records of earlier versions.
    """

    fingerprint: str
    source: str = ""
    num_images: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The fingerprint, as much of it as MLflow takes."""
        return self.fingerprint[:MAX_DATA_DIGEST]


@dataclass(kw_only=True)
class TaskRun:
    """A run and its known contents.

    Attributes:
        run_id: Id in MLflow.
        files_uri: URI of its files in MLflow.
        status: Status in MLflow: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        steps: Epochs in the run.
        params: Names of parameters in the run; a parameter can be written once.
        data: Digests of the data sets in the run.
    """

    run_id: str
    files_uri: str
    status: str
    steps: set[int] = field(default_factory=set)
    params: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)


class RunLog:
    """Writes runs of the experiment ``ship``.

    Every method raises ``RegistryDown`` when MLflow cannot be reached, ``RegistryError`` when it refuses.

    Args:
        session: The connection.
    """

    def __init__(self, session: MlflowSession) -> None:
        self._session = session

    def open(self, task: str, key: str, started_s: float, tags: Mapping[str, str] | None = None) -> TaskRun:
        """The run of a task key; made now, if there is none.

        Args:
            task: Name of the task.
            key: Task key.
            started_s: When the tuning began, seconds since the epoch.
            tags: Further tags, if it is made now.
        """
        run = self._find(task, key)
        if run is None:
            experiment, client = self._session.experiment_id, self._session.client
            named = {**(tags or {}), KEY_TAG: key, TASK_TAG: task}
            with self._session.errors(f"open the run of task {task!r}"):
                client.create_run(experiment, start_time=_milliseconds(started_s), tags=named, run_name=task)
            # Looked for again: MLflow's client repeats a request whose answer was lost, which makes two.
            run = self._find(task, key)
            if run is None:
                raise RegistryDown(f"MLflow at {self._session.where} lost the run of task {task!r} at once")
        steps: set[int] = set()
        if STEP_METRIC in run.data.metrics:
            with self._session.errors(f"open the run of task {task!r}"):
                history = self._session.client.get_metric_history(run.info.run_id, STEP_METRIC)
            steps = {point.step for point in history}
        return TaskRun(
            run_id=run.info.run_id,
            files_uri=run.info.artifact_uri,
            status=run.info.status,
            steps=steps,
            params=set(run.data.params),
            data={found.dataset.digest for found in run.inputs.dataset_inputs} if run.inputs else set(),
        )

    def _find(self, task: str, key: str) -> Any | None:
        """The run of a task key; of several the one that is furthest, and the others are deleted."""
        experiment, client = self._session.experiment_id, self._session.client
        with self._session.errors(f"open the run of task {task!r}"):
            found = client.search_runs(
                [experiment], f"tags.`{KEY_TAG}` = '{key}' and tags.`{TASK_TAG}` = '{task}'", max_results=10
            )
            if not found:
                return None
            run, *others = sorted(found, key=lambda run: (run.info.status != "FINISHED", run.info.run_id))
            for other in others:
                _logger.warning("run %s of task %s was made twice; it is deleted", other.info.run_id, task)
                client.delete_run(other.info.run_id)
        return run

    def log(
        self, run: TaskRun, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Add values; parameters that the run has stay as they are. One call for up to 800 points."""
        from mlflow.entities import Metric, Param, RunTag

        new = [Param(name, str(value)) for name, value in params.items() if name not in run.params]
        metrics = [Metric(p.name, p.value, _milliseconds(p.time_s), p.step) for p in points]
        marks = [RunTag(name, str(value)) for name, value in tags.items()]
        with self._session.errors("log to a run"):
            for batch in _calls(metrics, new, marks):
                self._session.client.log_batch(run.run_id, **batch)
        run.params.update(params)
        run.steps.update(point.step for point in points if point.name == STEP_METRIC)

    def log_data(self, run: TaskRun, task: str, data: DataSet) -> None:
        """Add the data set that the run was trained with, unless the run has it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if data.digest in run.data:
            return
        scheme, _, rest = data.source.partition("://")
        dataset = Dataset(
            name=task,
            digest=data.digest,
            source_type=scheme if rest else "local",
            source=json.dumps(
                {"uri": data.source, **({"settings": dict(data.settings)} if data.settings else {})}
            ),
            profile=json.dumps({"fingerprint": data.fingerprint, "num_train": data.num_images}),
        )
        with self._session.errors("log the data of a run"):
            context = [InputTag("mlflow.data.context", "training")]
            self._session.client.log_inputs(run.run_id, [DatasetInput(dataset, context)])
        run.data.add(data.digest)

    def origin(self, run_id: str) -> tuple[DataSet | None, dict[str, str]]:
        """The data set that a run was trained with, None if it does not tell; and the run's tags.

        A person may have edited what MLflow has: what is no data set of ours is left out.
        """
        with self._session.errors("read a run"):
            run = self._session.client.get_run(run_id)
        inputs = run.inputs.dataset_inputs if run.inputs else ()
        found = next(filter(None, (_read_data(one.dataset) for one in inputs)), None)
        return found, {str(name): str(value) for name, value in run.data.tags.items()}

    def log_files(self, run: TaskRun, files: Mapping[str, bytes]) -> None:
        """Add files, path to content, in place of earlier ones.

        Raises:
            RegistryDown: They cannot be written where MLflow keeps them.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with tempfile.TemporaryDirectory(prefix="ship-run-") as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            local = self._session.private_folder(run.files_uri)
            try:
                if local is not None:
                    make_private_folder(local)
                # Not `client.log_artifacts`, which reads all of the run again to learn where its files are.
                place = get_artifact_repository(run.files_uri, tracking_uri=self._session.tracking_uri)
                place.log_artifacts(folder)
                if local is not None:
                    # MLflow makes folders in it as the umask has it.
                    make_private_tree(local)
            # A boundary: files go to whatever storage MLflow has, whose client raises errors of its own.
            except Exception as error:
                raise RegistryDown(
                    f"MLflow at {self._session.where} did not take the files of a run: "
                    f"{type(error).__name__}; check its artifact storage and the credentials for it"
                ) from None

    def set_status(self, run: TaskRun, status: str, time_s: float) -> None:
        """Set ``RUNNING``, or an end: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        with self._session.errors("set the status of a run"):
            if status == "RUNNING":
                self._session.client.update_run(run.run_id, status=status)
            else:
                self._session.client.set_terminated(run.run_id, status, _milliseconds(time_s))
        run.status = status


def _read_data(dataset: Any) -> DataSet | None:
    try:
        source, profile = json.loads(dataset.source), json.loads(dataset.profile)
        settings = source.get("settings") or {}
        return DataSet(
            fingerprint=str(profile["fingerprint"]),
            source=str(source["uri"]),
            num_images=profile.get("num_train"),
            settings={str(name): value for name, value in settings.items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _calls(
    metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]
) -> Iterator[dict[str, Sequence[Any]]]:
    """Batches within MLflow's limits: usually one."""
    # 1000 values a call in all, 100 of them parameters or tags.
    num_calls = max(
        -(-len(metrics) // MAX_METRICS_A_CALL), -(-max(len(params), len(tags)) // MAX_OTHERS_A_CALL)
    )
    for i in range(num_calls):
        others = slice(i * MAX_OTHERS_A_CALL, (i + 1) * MAX_OTHERS_A_CALL)
        yield {
            "metrics": metrics[i * MAX_METRICS_A_CALL : (i + 1) * MAX_METRICS_A_CALL],
            "params": params[others],
            "tags": tags[others],
        }


def _milliseconds(time_s: float) -> int:
    return round(time_s * 1000)
