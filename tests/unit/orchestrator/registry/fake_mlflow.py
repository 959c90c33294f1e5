"""An MLflow in memory, as far as the registry uses its client. Its calls can fail, lose answers or repeat."""

import itertools
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from orchestrator.registry.registry import Registry
from orchestrator.registry.session import MlflowSession

__all__ = ["FakeMlflow", "Page", "make_registry"]


class Page(list[Any]):
    """A page of a listing, the last one."""

    token = None


class FakeMlflow:
    """Registered models, their versions and aliases, and runs.

    Attributes:
        before: Called with the name of each call before it has its effect.
        after: Called after it has, before its answer.
        calls: Names of the calls so far.
        hidden: Names of models that listings leave out, as for a user without the right to read them.
    """

    def __init__(self, identity: str = "a" * 32) -> None:
        self.models: dict[str, SimpleNamespace] = {}
        self.versions: dict[str, dict[int, SimpleNamespace]] = {}
        self.runs: dict[str, SimpleNamespace] = {}
        self.points: dict[tuple[str, str], list[Any]] = {}
        self.experiment = SimpleNamespace(
            experiment_id="1", lifecycle_stage="active", tags={"ship.registry": identity}, creation_time=1
        )
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None
        self.repeats: set[str] = set()
        self.calls: list[str] = []
        self.hidden: set[str] = set()
        self._clock = itertools.count(1_700_000_000_000)
        self._numbers = itertools.count(1)
        self._last_number: dict[str, int] = {}

    def __getattribute__(self, name: str) -> Any:
        """The attribute; a call passes ``before`` and ``after``."""
        found = object.__getattribute__(self, name)
        if name.startswith("_") or not callable(found) or name in ("before", "after"):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            self.before(name)
            answer = found(*args, **options)
            if name in self.repeats:
                answer = found(*args, **options)
            self.after(name)
            return answer

        return call

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return self.experiment

    def create_registered_model(self, name: str, tags: dict[str, str]) -> SimpleNamespace:
        if name in self.models:
            raise MlflowException("it exists", RESOURCE_ALREADY_EXISTS)
        made = next(self._clock)
        self.models[name] = SimpleNamespace(
            name=name, aliases={}, tags=dict(tags), creation_timestamp=made, last_updated_timestamp=made
        )
        self.versions.setdefault(name, {}).clear()
        self._last_number.pop(name, None)
        return self.models[name]

    def get_registered_model(self, name: str) -> SimpleNamespace:
        return self._copy(self._model(name))

    def search_registered_models(self, *_: Any, **__: Any) -> Page:
        return Page(self._copy(model) for name, model in self.models.items() if name not in self.hidden)

    def delete_registered_model(self, name: str) -> None:
        del self.models[name], self.versions[name]

    def create_model_version(
        self, name: str, source: str, run_id: str | None = None, tags: Any = None, **_: Any
    ) -> SimpleNamespace:
        self._model(name)
        versions = self.versions[name]
        # No number is given twice, as MLflow's stores have it, also not that of a deleted version.
        number = max(self._last_number.get(name, 0), max(versions, default=0)) + 1
        self._last_number[name] = number
        versions[number] = SimpleNamespace(
            name=name,
            version=str(number),
            source=source,
            run_id=run_id,
            tags=dict(tags or {}),
            aliases=[],
            creation_timestamp=next(self._clock),
        )
        return versions[number]

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        found = self.versions.get(name, {}).get(int(version))
        if found is None:
            raise MlflowException("no such version", RESOURCE_DOES_NOT_EXIST)
        return found

    def delete_model_version(self, name: str, version: str) -> None:
        del self.versions[name][int(version)]
        aliases = self.models[name].aliases
        self.models[name].aliases = {key: at for key, at in aliases.items() if str(at) != version}

    def search_model_versions(self, condition: str, **_: Any) -> Page:
        name = re.search(r"name = '([^']*)'", condition)
        digest = re.search(r"ship\.digest` = '([^']*)'", condition)
        return Page(
            found
            for versions in self.versions.values()
            for found in versions.values()
            if (name is None or found.name == name[1])
            and (digest is None or found.tags.get("ship.digest") == digest[1])
        )

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.get_model_version(name, version)
        self._model(name).aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._model(name).aliases.pop(alias, None)

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self._model(name).tags[key] = value

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        self._model(name).tags.pop(key, None)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.get_model_version(name, version).tags[key] = value

    def create_run(self, experiment_id: str, **values: Any) -> SimpleNamespace:
        run_id = f"{next(self._numbers):032x}"
        self.runs[run_id] = SimpleNamespace(
            info=SimpleNamespace(
                run_id=run_id,
                run_name=values.get("run_name"),
                status="RUNNING",
                artifact_uri="memory:/",
                start_time=values.get("start_time"),
                end_time=None,
            ),
            data=SimpleNamespace(tags=dict(values.get("tags", {})), metrics={}, params={}),
            inputs=SimpleNamespace(dataset_inputs=[]),
        )
        return self.runs[run_id]

    def search_runs(self, _: list[str], condition: str, **__: Any) -> Page:
        wanted = dict(re.findall(r"tags\.`([^`]*)` = '([^']*)'", condition))
        return Page(run for run in self.runs.values() if wanted.items() <= run.data.tags.items())

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        data = self.runs[run_id].data
        for metric in metrics:
            self.points.setdefault((run_id, metric.key), []).append(metric)
            data.metrics[metric.key] = metric.value
        data.params.update({param.key: param.value for param in params})

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return self.points.get((run_id, key), [])

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id].data.tags[key] = value

    def set_terminated(self, run_id: str, status: str, end_time: int | None = None) -> None:
        self.runs[run_id].info.status, self.runs[run_id].info.end_time = status, end_time

    def set_experiment_tag(self, _: str, key: str, value: str) -> None:
        self.experiment.tags[key] = value

    def get_run(self, run_id: str) -> SimpleNamespace:
        if run_id not in self.runs:
            raise MlflowException("no such run", RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def log_inputs(self, run_id: str, datasets: list[Any]) -> None:
        if run_id not in self.runs:
            raise MlflowException("no such run", RESOURCE_DOES_NOT_EXIST)
        self.runs[run_id].inputs.dataset_inputs += datasets

    def delete_run(self, run_id: str) -> None:
        del self.runs[run_id]

    def _model(self, name: str) -> SimpleNamespace:
        if name not in self.models:
            raise MlflowException("no such model", RESOURCE_DOES_NOT_EXIST)
        return self.models[name]

    def _copy(self, model: SimpleNamespace) -> SimpleNamespace:
        """What a client gets does not change with what the server has."""
        latest = list(self.versions[model.name].values())[-1:]
        return SimpleNamespace(
            **{
                **vars(model),
                "aliases": dict(model.aliases),
                "tags": dict(model.tags),
                "latest_versions": [SimpleNamespace(**vars(version)) for version in latest],
            }
        )


class _Session(MlflowSession):
    """A session of an MLflow in memory."""

    def __init__(self, client: FakeMlflow) -> None:
        super().__init__("memory:")
        self.__dict__["client"] = client


def make_registry(client: FakeMlflow) -> Registry:
    """A registry of its own, as another process has it, on one MLflow."""
    return Registry("memory:", session=_Session(client))


def names_of(calls: list[str]) -> Iterator[str]:
    """The calls that change something."""
    return (name for name in calls if name.startswith(("set_", "create_", "delete_")))
