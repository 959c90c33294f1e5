"""MLflow's page: the command and environment of its server, and that no process of it is left behind."""

import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.page import check_port, page_command, page_url, running_page
from orchestrator.registry.session import MlflowSession
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry

# A server whose work is done by a child of its own, as MLflow's is; it ends neither by SIGTERM.
SERVER = """
import http.server, pathlib, signal, subprocess, sys
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code])
pathlib.Path(sys.argv[2]).write_text(str(child.pid))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_ends_with_its_children_however_the_block_ends(tmp_path: Path) -> None:
    port, place = free_port(), tmp_path / "pid"
    command = [sys.executable, "-c", SERVER, str(port), str(place)]
    with (
        suppress(KeyboardInterrupt),
        running_page(command, {}, f"http://127.0.0.1:{port}/health") as process,
    ):
        child = int(place.read_text())
        assert is_alive(child)
        raise KeyboardInterrupt
    assert process.poll() is not None
    deadline_s = time.monotonic() + 10.0
    while is_alive(child) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not is_alive(child)


def test_a_server_that_ends_at_once_says_why() -> None:
    command = [sys.executable, "-c", "raise SystemExit('the database is too old')"]
    with (
        pytest.raises(RegistryError, match="MLflow's server ended: the database is too old"),
        running_page(command, {}, f"http://127.0.0.1:{free_port()}/health"),
    ):
        pass


def test_a_server_that_does_not_answer_is_ended() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        pytest.raises(RegistryError, match=r"did not answer within 0.2 s: it said nothing"),
        running_page(command, {}, f"http://127.0.0.1:{free_port()}/health", start_s=0.2),
    ):
        pass


def test_the_command_line_shows_no_password() -> None:
    session = MlflowSession("postgresql://anna:very-secret@db/mlflow")
    command, environment = page_command(session, "file:///home/artifacts", "127.0.0.1", 5001)
    assert "very-secret" not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://anna:very-secret@db/mlflow"
    assert command[3:] == [
        *("server", "--host", "127.0.0.1", "--port", "5001", "--workers", "1"),
        *("--artifacts-destination", "file:///home/artifacts"),
    ]
    assert "--artifacts-destination" not in page_command(session, None, "127.0.0.1", 5001)[0]


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(RegistryError, match=r"127.0.0.1:\d+ cannot be listened on: .*choose another"):
            check_port("127.0.0.1", listener.getsockname()[1])
    check_port("127.0.0.1", free_port())
    with pytest.raises(RegistryError, match=r"no-such-host.invalid:5000 cannot be listened on"):
        check_port("no-such-host.invalid", 5000)


def test_the_page_is_that_of_our_experiment_and_a_registry_without_one_is_not_given_one() -> None:
    mlflow = FakeMlflow()
    session = make_registry(mlflow).session
    assert page_url(session, "http://plant:5000/") == "http://plant:5000/#/experiments/1"
    mlflow.experiment = None
    assert page_url(session, "http://plant:5000") == "http://plant:5000"
    assert set(mlflow.calls) == {"get_experiment_by_name"}
