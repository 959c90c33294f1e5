"""Store, registry and recorder against a real MLflow on sqlite."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from orchestrator.errors import RegistryError
from orchestrator.store.mlflow_session import MlflowSession
from orchestrator.store.objects import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.recorder import Recorder
from orchestrator.store.registry import Registry, RegistryDown
from orchestrator.store.spool import REJECTED
from orchestrator.store.versions import Champion
from tests.unit.orchestrator.store.factory import TIME_S, make_event, make_key, tune

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has made its tables in, which takes seconds: made once, copied for each test."""
    # The folder is made, too.
    path = tmp_path_factory.mktemp("mlflow") / "home" / "mlflow.db"
    assert MlflowSession(f"sqlite:///{path}").client is not None
    return path


class Place:
    """A store and an MLflow of one test."""

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


@pytest.fixture
def place(tmp_path: Path, empty_database: Path) -> Iterator[Place]:
    with closing(Place(tmp_path, empty_database)) as place:
        yield place


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry on a port that nobody listens on, with a password in its URI."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return Registry(f"http://user:very-secret@127.0.0.1:{port}")


def test_a_life_from_tuning_to_champion(place: Place) -> None:
    place.record("bolts", accuracy=0.9)

    key = make_key("bolts")
    digest = place.store.published("bolts", key).digest
    assert place.registry.champions() == {"bolts": Champion(version=1, digest=digest)}
    champion = place.registry.champion("bolts")
    assert champion.source == place.store.uri(digest)
    assert champion.metrics["accuracy"] == 0.9
    assert "beats the linear probe" in champion.gate_reason
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    run = client.get_run(champion.run_id)
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (TIME_S * 1000, (TIME_S + 40) * 1000)
    assert run.data.params == {"num_independent": "10", "threshold": "auto", "seed": "0"}
    assert run.data.tags["ship.key"] == key
    assert run.data.metrics["probe_accuracy"] == 0.8
    found = curves(client, champion.run_id, {"loss": 0, "learning_rate": 0})
    assert found["loss"] == [(n, (TIME_S + 10 * n) * 1000, 1.0 / n) for n in (1, 2, 3)]
    assert [step for step, _, _ in found["learning_rate"]] == [1, 2, 3]
    files = {
        file.path
        for folder in ("prompt", "figures")
        for file in client.list_artifacts(champion.run_id, folder)
    }
    assert files == {
        "figures/affinity.png",
        "figures/confusion.png",
        "prompt/README.md",
        "prompt/prompt.json",
        "prompt/prompt.safetensors",
        "prompt/record.json",
    }
    assert list((place.folder / "spool").glob("*.jsonl")) == []


def test_a_worse_version_stays_challenger_with_the_reason(place: Place) -> None:
    place.record("bolts", key=make_key("1"), accuracy=0.95, accuracy_low=0.93)
    place.record("bolts", key=make_key("2"), accuracy=0.85, data="other images")

    [info] = place.registry.tasks()
    assert (info.champion.version, info.challenger.version, info.previous, info.latest) == (1, 2, None, 2)
    newest, oldest = place.registry.versions("bolts")
    assert newest.aliases == ("challenger",)
    assert oldest.aliases == ("champion",)
    assert "is worse than today's champion (0.9500" in newest.gate_reason
    assert "other data" in newest.gate_reason


def test_promote_and_roll_back(place: Place) -> None:
    place.record("bolts", key=make_key("1"), accuracy=0.95, accuracy_low=0.93)
    place.record("bolts", key=make_key("2"), accuracy=0.85)

    promotion = place.registry.promote("bolts")

    assert (promotion.from_version, promotion.to_version) == (1, 2)
    [info] = place.registry.tasks()
    assert (info.champion.version, info.challenger, info.previous) == (2, None, 1)
    back = place.registry.rollback("bolts")
    assert (back.from_version, back.to_version) == (2, 1)
    assert place.registry.champions()["bolts"].version == 1
    assert place.registry.rollback("bolts").to_version == 2
    assert place.registry.promote("bolts", 1).to_version == 1
    assert place.registry.promote("bolts", 1).from_version == 1


def test_a_promoted_version_is_seen_by_a_registry_that_looked_before(place: Place) -> None:
    place.record("bolts", key=make_key("1"), accuracy=0.95, accuracy_low=0.93)
    place.record("bolts", key=make_key("2"), accuracy=0.85)
    reader = Registry(place.uri)
    before = reader.champions()["bolts"]

    place.registry.promote("bolts", 2)

    assert (before.version, reader.champions()["bolts"].version) == (1, 2)
    assert reader.champions()["bolts"].digest == place.store.published("bolts", make_key("2")).digest


def test_a_model_that_was_made_anew_is_not_confused_with_the_old_one(place: Place) -> None:
    place.record("bolts", key=make_key("1"), accuracy=0.9)
    before = place.registry.champions()["bolts"]
    MlflowClient(tracking_uri=place.uri, registry_uri=place.uri).delete_registered_model("ship.bolts")
    assert place.registry.champions() == {}

    place.record("bolts", key=make_key("2"), accuracy=0.8)

    after = place.registry.champions()["bolts"]
    assert after.version == before.version == 1
    assert after.digest != before.digest


def test_foreign_models_are_left_alone(place: Place) -> None:
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    for name in ("other", "ship.Not A Task", "ship.foreign"):
        client.create_registered_model(name)
        client.create_model_version(name, source="s3://somewhere/else")
        client.set_registered_model_alias(name, "champion", "1")

    assert place.registry.champions() == {}
    assert [(info.task, info.champion.digest) for info in place.registry.tasks()] == [("foreign", None)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda registry: registry.versions("bolt"), "no task 'bolt'.*did you mean bolts"),
        (lambda registry: registry.champion("zzz"), "no task 'zzz'.*ship ls"),
        (lambda registry: registry.promote("bolts", 7), "no version 7; it has: 1"),
        (lambda registry: registry.set_challenger("bolts", 7), "no version 7; it has: 1"),
        (lambda registry: registry.promote("bolts"), "no challenger.*name a version: 1"),
        (lambda registry: registry.rollback("bolts"), "no previous champion.*one of its versions: 1"),
    ],
)
def test_what_cannot_be_done_says_what_can(place: Place, call: Any, message: str) -> None:
    place.record("bolts")

    with pytest.raises(RegistryError, match=message) as caught:
        call(place.registry)

    assert not isinstance(caught.value, RegistryDown)


def test_many_tasks_are_recorded_in_one_go_and_one_bad_one_stops_nobody(place: Place) -> None:
    good, bad, gone = (tune(place.store, task) for task in ("good", "bad", "gone"))
    broken = {"digest": make_key("no such artifact")}
    gone[-1] = make_event("published", "gone", at_s=40, **broken)
    bad[1] = make_event("epoch", "bad", at_s=1, epoch="not a number")
    recorder = place.recorder()

    recorder.handle([*bad, *gone, *good])

    assert set(place.registry.champions()) == {"good"}
    assert recorder.summary().num_records == len(gone)
    assert "task bad" in (place.folder / "spool" / REJECTED).read_text()


def test_failures_and_retries_are_told(place: Place) -> None:
    recorder = place.recorder()
    recorder.handle([make_event("leased", worker="w1"), make_event("retried", at_s=5, cause="worker died")])
    recorder.handle([make_event("failed", at_s=9, cause="bad-image", detail="a.png is corrupt")])

    [(info, data, _)] = place.state()["runs"]
    assert info["status"] == "FAILED"
    assert info["end_time"] == (TIME_S + 9) * 1000
    assert data["tags"]["ship.cause"] == "bad-image"
    assert data["tags"]["ship.retry.cause"] == "worker died"
    assert place.registry.tasks() == []

    recorder.handle(tune(place.store, "bolts"))
    [(info, _, _)] = place.state()["runs"]
    assert info["status"] == "FINISHED"


def test_an_mlflow_that_is_down_delays_records_only(
    place: Place, down: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    events = tune(place.store, "bolts")
    now = SimpleNamespace(s=0.0)
    driver = place.recorder(down, monotonic=lambda: now.s)
    driver.handle(events[:2])
    driver.handle(events[2:4])
    now.s = 1000.0
    driver.handle(events[4:])
    backlog = driver.close()

    assert backlog.num_records == len(events)
    assert f"{len(events)} records wait in {place.folder / 'spool'}" in str(backlog)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "tuning goes on" in warning
    assert "very-secret" not in caplog.text

    successor = place.recorder()
    assert str(successor.replay()) == ""
    replayed = place.state()
    assert place.registry.champions()["bolts"].version == 1
    assert list((place.folder / "spool").glob("*.jsonl")) == []

    successor.handle(events)
    place.recorder().handle(events)
    assert place.state() == replayed


def test_records_of_a_driver_that_was_killed_are_replayed_as_if_it_was_not(
    place: Place, tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> None:
    events = tune(place.store, "bolts")
    with closing(Place(tmp_path_factory.mktemp("other"), empty_database)) as other:
        tune(other.store, "bolts")
        other.recorder().handle(events)
        [(_, whole, whole_curves)] = other.state()["runs"]
    first = place.recorder()
    first.handle(events[:2])
    first._spool.append(events[1:])
    first._spool.close()

    place.recorder().replay()

    [(_, healed, healed_curves)] = place.state()["runs"]
    assert healed["metrics"] == whole["metrics"]
    assert healed["params"] == whole["params"]
    assert healed_curves == whole_curves


def test_an_alias_that_a_person_moved_is_not_moved_back(place: Place) -> None:
    first = tune(place.store, "bolts", make_key("1"), accuracy=0.9)
    second = tune(place.store, "bolts", make_key("2"), accuracy=0.95)
    place.recorder().handle([*first, *second])
    assert place.registry.champions()["bolts"].version == 2
    place.registry.rollback("bolts")

    place.recorder().handle([*first, *second])

    assert place.registry.champions()["bolts"].version == 1


def test_what_nobody_recorded_is_recorded_from_the_artifact(place: Place) -> None:
    tune(place.store, "bolts")
    tune(place.store, "nuts")
    specs = [SimpleNamespace(name=task, key=make_key(task)) for task in ("bolts", "nuts", "unpublished")]
    published = place.store.all_published()

    place.recorder().reconcile(published, specs)
    healed = place.state()
    place.recorder().reconcile(published, specs)

    assert set(place.registry.champions()) == {"bolts", "nuts"}
    assert [[step for step, _, _ in found["loss"]] for _, _, found in healed["runs"]] == [[1, 2, 3]] * 2
    assert {info["status"] for info, _, _ in healed["runs"]} == {"FINISHED"}
    assert place.state() == healed


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """An MLflow server of its own, that keeps files of runs itself."""
    shutil.copy(empty_database, tmp_path / "server.db")
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    options = {
        "--backend-store-uri": f"sqlite:///{tmp_path / 'server.db'}",
        "--artifacts-destination": (tmp_path / "server-files").as_uri(),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server", *chain.from_iterable(options.items())]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_a_server_records_a_store_on_local_disk(
    place: Place, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(server)
    events = [
        *tune(place.store, "bolts", make_key("1"), accuracy=0.95, accuracy_low=0.93),
        *tune(place.store, "bolts", make_key("2"), accuracy=0.85),
    ]
    recorder = place.recorder(registry)
    recorder.handle(events)

    assert recorder.summary().num_records == 0
    newest, champion = registry.versions("bolts")
    assert (newest.aliases, champion.aliases) == (("challenger",), ("champion",))
    # A server takes no path of its client's disk as a source.
    assert champion.source == f"runs:/{champion.run_id}/prompt"
    assert champion.tags["ship.uri"] == place.store.uri(champion.digest)
    assert registry.champions() == {"bolts": Champion(version=1, digest=champion.digest)}
    assert registry.promote("bolts").to_version == 2
    assert registry.rollback("bolts").to_version == 1
    with pytest.raises(RegistryError, match="no version 7; it has: 2, 1"):
        registry.promote("bolts", 7)
    assert capsys.readouterr().out == ""


def test_reading_from_an_mlflow_that_is_down_says_so_without_its_password(down: Registry) -> None:
    with pytest.raises(RegistryDown, match="MLFLOW_TRACKING_URI") as caught:
        down.tasks()

    assert "very-secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite:////proc/nowhere/mlflow.db", "sqlite:///{folder}/no-database"])
def test_a_database_that_cannot_be_opened_is_named(uri: str, tmp_path: Path) -> None:
    (tmp_path / "no-database").write_bytes(b"this is text, not a database" * 100)

    with pytest.raises(RegistryDown, match="did not open"):
        Registry(uri.format(folder=tmp_path)).tasks()
