"""`ship ui` on the MLflow of a home: its page answers, and nothing is left behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.place import Place

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)
SHIP = (sys.executable, "-c", "from orchestrator.cli.main import main; main()")


def start(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.Popen(
        [*SHIP, "--home", str(home), "ui", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_page_of_a_home_answers_until_it_is_ended(place: Place, number: signal.Signals) -> None:
    place.record("bolts")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    ship = start(place.folder, "--port", str(port))
    try:
        assert ship.stdout is not None
        url = ship.stdout.readline().strip()
        experiment = place.registry.session.experiment_id
        assert url == f"http://127.0.0.1:{port}/#/experiments/{experiment}"
        assert httpx.get(url).is_success
        asked = {"experiment_ids": [experiment]}
        found = httpx.post(f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search", json=asked).json()
        [run] = found["runs"]
        files = httpx.get(
            f"http://127.0.0.1:{port}/get-artifact",
            params={"run_uuid": run["info"]["run_id"], "path": "prompt/README.md"},
        )
        assert files.text == "# bolts\n"
        started = psutil.Process(ship.pid).children(recursive=True)
        assert started
        ship.send_signal(number)
        assert ship.wait(60) == 0, ship.stderr.read() if ship.stderr else ""
        _, alive = psutil.wait_procs(started, timeout=30)
        assert alive == []
    finally:
        ship.kill()
        ship.communicate()


def test_a_home_without_an_mlflow_gets_none(tmp_path: Path) -> None:
    ship = start(tmp_path / "mistyped")
    _, said = ship.communicate(timeout=120)
    assert ship.returncode == 1
    assert "there is no MLflow at" in said
    assert list(tmp_path.iterdir()) == []
