"""An S3 store and a tracking server that can be frozen: connections to them hang, as in a cut network.

S3 is moto's, which keeps everything in memory. ``tests/integration/test_real_parts.py`` tests a real S3 and a
real database.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock

import boto3

from orchestrator.settings import Settings

__all__ = ["Services", "running_services"]

_BUCKET = "ship-test"
_START_S = 120.0
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Services:
    """The store and the tracking server.

    Args:
        settings: Settings that name both.
        processes: Processes of both.
    """

    def __init__(self, settings: Settings, processes: list[subprocess.Popen[bytes]]) -> None:
        self.settings = settings
        self._processes = processes

    @contextmanager
    def down(self) -> Iterator[None]:
        """Freeze both for the block; connections to them hang."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill both."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            # The tracking server has worker processes.
            os.killpg(process.pid, number)


@contextmanager
def running_services(folder: Path) -> Iterator[Services]:
    """Both services, empty, for the block; this process's environment names the S3 for child processes."""
    store_port, tracking_port = _free_port(), _free_port()
    environment = {**_CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store_port}"}
    with mock.patch.dict(os.environ, environment):
        services = Services(
            Settings.from_env(
                {
                    "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{tracking_port}",
                    "SHIP_CACHE": str(folder / "cache"),
                },
                home=str(folder / "home"),
                store=f"s3://{_BUCKET}",
            ),
            [
                _start(["moto.server", "-H", "127.0.0.1", "-p", str(store_port)], folder / "s3.log"),
                _start(
                    [
                        "mlflow",
                        "server",
                        *("--host", "127.0.0.1", "--port", str(tracking_port), "--workers", "1"),
                        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                        *("--artifacts-destination", str(folder / "artifacts")),
                    ],
                    folder / "mlflow.log",
                    {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                ),
            ],
        )
        try:
            _wait(f"http://127.0.0.1:{store_port}/moto-api/")
            _wait(f"http://127.0.0.1:{tracking_port}/health")
            boto3.client("s3").create_bucket(Bucket=_BUCKET)
            yield services
        finally:
            services.end()


def _start(
    module: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )


def _wait(url: str) -> None:
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5.0):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
