"""An MLflow server of its own, and what can't be reached or opened."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import httpx
import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.registry import Registry, RegistryDown
from orchestrator.registry.rollouts import Rollouts
from tests.integration.place import Place, champions
from tests.unit.orchestrator.store.factory import make_key, tune

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


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

    assert recorder.drain().num_records == 0
    newest, champion = registry.versions("bolts")
    assert (newest.aliases, champion.aliases) == (("challenger",), ("champion",))
    # A server takes no path of its client's disk as a source.
    assert champion.source == f"runs:/{champion.run_id}/prompt"
    assert champion.tags["ship.uri"] == place.store.uri(champion.digest)
    assert champions(registry) == {"bolts": champion}
    rollouts = Rollouts(registry, place.store)
    assert rollouts.promote("bolts", force=True).to_version == 2
    assert rollouts.rollback("bolts").to_version == 1
    with pytest.raises(RegistryError, match="no version 7; it has: 2, 1"):
        rollouts.promote("bolts", 7)
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
        Registry(uri.format(folder=tmp_path), may_create=True).tasks()
