"""Models, versions and runs of a registry as JSON, read and written by MLflow's own API."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.errors import RegistryError
from orchestrator.names import MODEL_PREFIX
from orchestrator.registry.session import EXPERIMENT, MlflowSession
from orchestrator.store.documents.document import Document

__all__ = ["read_values", "write_values"]

# Of a restored run: the id that it had; and that all of it is there.
_RUN_TAG, _WHOLE_TAG = "ship.restored_from", "ship.restored"
_PAGE, _MAX_READERS, _MAX_BATCH = 1000, 16, 500
_ADVICE = "restore another backup, or update this program"
# Source of a version that only keeps the numbers of later ones.
_GONE = "gone"
_Point = tuple[str, float, int, int]


class _Dataset(Document):
    name: str
    digest: str
    source_type: str
    source: str
    profile: str | None
    tags: dict[str, str]


class _Run(Document):
    run_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: list[_Point]
    datasets: list[_Dataset]


class _Version(Document):
    version: Annotated[int, Field(ge=1)]
    source: str
    run_id: str | None
    tags: dict[str, str]


class _Model(Document):
    name: str
    tags: dict[str, str]
    aliases: dict[str, int]
    versions: list[_Version]


class _Values(Document):
    schema_: Literal[1] = Field(alias="schema")
    experiment: dict[str, str]
    runs: list[_Run]
    models: list[_Model]


def read_values(session: MlflowSession) -> bytes:
    """All of the registry as JSON.

    Versions are read after aliases and runs after versions: what these name is there.

    Raises:
        RegistryDown: MLflow cannot be reached.
    """
    client = session.client
    with session.errors("copy the registry"):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None, "it gives the registry its identity"
        ours = f"name LIKE '{MODEL_PREFIX}%'"
        models = [_read_model(client, model) for model in _all(client.search_registered_models, ours)]
        runs = list(_all_runs(client, experiment.experiment_id))
        with ThreadPoolExecutor(_MAX_READERS) as readers:
            copied = list(readers.map(lambda run: _read_run(client, run), runs))
    values = _Values(
        schema=1,
        experiment=dict(experiment.tags or {}),
        runs=copied,
        models=models,
    )
    return (json.dumps(values.model_dump(by_alias=True), sort_keys=True) + "\n").encode()


def _read_model(client: Any, model: Any) -> _Model:
    # MLflow's listing of models leaves most versions out, that of versions all aliases.
    aliases = {alias: int(version) for alias, version in dict(model.aliases or {}).items()}
    found = _all(client.search_model_versions, f"name = '{model.name}'")
    versions = [
        _Version(
            version=int(one.version),
            source=one.source or "",
            run_id=one.run_id or None,
            tags=dict(one.tags or {}),
        )
        for one in found
    ]
    ordered = sorted(versions, key=lambda one: one.version)
    return _Model(name=model.name, tags=dict(model.tags or {}), aliases=aliases, versions=ordered)


def _read_run(client: Any, run: Any) -> _Run:
    points = [
        (metric.key, float(metric.value), int(metric.timestamp), int(metric.step))
        for name in sorted(run.data.metrics)
        for metric in client.get_metric_history(run.info.run_id, name)
    ]
    return _Run(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        status=run.info.status,
        start_ms=int(run.info.start_time or 0),
        end_ms=run.info.end_time,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=points,
        datasets=[_read_dataset(one) for one in run.inputs.dataset_inputs],
    )


def _read_dataset(found: Any) -> _Dataset:
    dataset = found.dataset
    return _Dataset(
        name=dataset.name,
        digest=dataset.digest,
        source_type=dataset.source_type,
        source=dataset.source,
        profile=dataset.profile,
        tags={tag.key: tag.value for tag in found.tags},
    )


def _all(search: Callable[..., Any], condition: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(condition, max_results=_PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _all_runs(client: Any, experiment_id: str) -> Iterator[Any]:
    return _all(partial(client.search_runs, [experiment_id]), "")


def write_values(session: MlflowSession, content: bytes) -> None:
    """Write the registry into an MLflow that has none, or a part of this one.

    Raises:
        RegistryError: It has a model or a version that is another.
        RegistryDown: MLflow cannot be reached.
        StoreError: The content is no copy.
    """
    values = _Values.read(content, "the copy of the registry", _ADVICE)
    client, experiment_id = session.client, session.experiment_id
    with session.errors("restore the registry"):
        for key, value in values.experiment.items():
            client.set_experiment_tag(experiment_id, key, value)
        runs = _known_runs(client, experiment_id)
        for run in values.runs:
            if run.run_id not in runs:
                runs[run.run_id] = _write_run(client, experiment_id, run)
        for model in values.models:
            _write_model(session, model, runs)


def _known_runs(client: Any, experiment_id: str) -> dict[str, str]:
    """Ids of runs that were restored to their end, by the ids that they had."""
    known = {}
    for run in list(_all_runs(client, experiment_id)):
        before = run.data.tags.get(_RUN_TAG)
        if before and _WHOLE_TAG not in run.data.tags:
            # A restoration was ended in the middle of it.
            client.delete_run(run.info.run_id)
        elif before:
            known[before] = run.info.run_id
    return known


def _write_run(client: Any, experiment_id: str, run: _Run) -> str:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    # Of a registry that was itself restored, its runs have these marks already.
    own = {name: value for name, value in run.tags.items() if name not in (_RUN_TAG, _WHOLE_TAG)}
    tags = {**own, _RUN_TAG: run.run_id}
    made = client.create_run(experiment_id, start_time=run.start_ms, run_name=run.name or None, tags=tags)
    run_id = str(made.info.run_id)
    metrics = [
        Metric(key=key, value=value, timestamp=at_ms, step=step) for key, value, at_ms, step in run.metrics
    ]
    params = [Param(key, value) for key, value in run.params.items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), _MAX_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _MAX_BATCH])
    inputs = [
        DatasetInput(
            Dataset(
                name=one.name,
                digest=one.digest,
                source_type=one.source_type,
                source=one.source,
                profile=one.profile,
            ),
            [InputTag(key, value) for key, value in one.tags.items()],
        )
        for one in run.datasets
    ]
    if inputs:
        client.log_inputs(run_id, datasets=inputs)
    if run.status != "RUNNING":
        client.set_terminated(run_id, status=run.status, end_time=run.end_ms)
    client.set_tag(run_id, _WHOLE_TAG, "1")
    return run_id


def _write_model(session: MlflowSession, model: _Model, runs: dict[str, str]) -> None:
    client = session.client
    found = {one.name: one for one in _all(client.search_registered_models, f"name = '{model.name}'")}
    if model.name not in found:
        client.create_registered_model(model.name, tags=model.tags)
    held = {int(one.version): one for one in _all(client.search_model_versions, f"name = '{model.name}'")}
    wanted = {one.version: one for one in model.versions}
    for number, one in held.items():
        is_gap = number not in wanted and one.source == _GONE
        if not is_gap and (number not in wanted or dict(one.tags or {}) != wanted[number].tags):
            raise RegistryError(
                f"MLflow at {session.where} has another version {number} of {model.name}: expected a "
                "registry without models of ours; set MLFLOW_TRACKING_URI to an empty one, or leave the "
                "registry out with --store-only"
            )
    made = range(max(held, default=0) + 1, max(wanted, default=0) + 1)
    for number in made:
        _write_version(client, model.name, number, wanted.get(number), runs)
    # Versions that were deleted: the numbers of later ones stay as they were. Once those are there: MLflow
    # gives no number twice, and a deleted last one could not be told from one that was never made.
    for number in sorted({*held, *made} - set(wanted)):
        client.delete_model_version(model.name, str(number))
    for alias, number in model.aliases.items():
        if number in wanted:
            client.set_registered_model_alias(model.name, alias, str(number))


def _write_version(
    client: Any, name: str, number: int, wanted: _Version | None, runs: dict[str, str]
) -> None:
    made = client.create_model_version(
        name,
        source=wanted.source if wanted else _GONE,
        run_id=runs.get(wanted.run_id or "") if wanted else None,
        tags=wanted.tags if wanted else {},
        await_creation_for=0,
    )
    if int(made.version) != number:
        raise RegistryError(
            f"MLflow gave version {made.version} of {name} in place of {number}: expected an MLflow that "
            "counts versions from 1; restore to an empty one"
        )
