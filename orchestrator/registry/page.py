"""MLflow's own page on the registry: its address, and a server of MLflow's for a registry that has none."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from orchestrator.errors import RegistryError
from orchestrator.registry.session import EXPERIMENT, MlflowSession

__all__ = ["check_port", "page_command", "page_url", "running_page"]

START_S, END_S = 60.0, 10.0
_POLL_S = 0.1
_MAX_LOG_CHARS = 2000


def page_url(session: MlflowSession, base: str) -> str:
    """Address of the experiment of this registry in MLflow's page.

    Args:
        session: Connection to the registry. Nothing is made there.
        base: Address of the page.

    Raises:
        RegistryDown: There is no MLflow, or it cannot be reached.
    """
    with session.errors(f"find the experiment {EXPERIMENT!r}"):
        found = session.client.get_experiment_by_name(EXPERIMENT)
    root = base.rstrip("/")
    return root if found is None else f"{root}/#/experiments/{found.experiment_id}"


def page_command(
    session: MlflowSession, artifact_location: str | None, host: str, port: int
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of an MLflow server on the registry's database.

    The database's URI, which may hold a password, is in the environment alone.

    Args:
        session: Connection to the registry.
        artifact_location: Folder of the files of runs; None leaves it to MLflow.
        host: Address that it listens on.
        port: Its port.
    """
    options = {"--host": host, "--port": str(port), "--workers": "1"}
    if artifact_location is not None:
        options["--artifacts-destination"] = artifact_location
    words = [word for option in options.items() for word in option]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": session.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Of language models; it starts further processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return [sys.executable, "-m", "mlflow", "server", *words], environment


def check_port(host: str, port: int) -> None:
    """Check that a port can be listened on.

    Raises:
        RegistryError: It is taken, or the host is none of this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise RegistryError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; choose another --port or --host"
        ) from None


@contextmanager
def running_page(
    command: Sequence[str], environment: Mapping[str, str], health: str, start_s: float = START_S
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server in a process group of its own, from its first answer until the end of the block.

    Args:
        command: Command of the server.
        environment: Its environment.
        health: URL that answers once it is up.
        start_s: Longest time for that.

    Raises:
        RegistryError: It ended, or did not answer in time; with the end of its log.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_for(process, health, start_s, log)
            yield process
        finally:
            _end_group(process)


def _wait_for(process: "subprocess.Popen[bytes]", health: str, start_s: float, log: IO[bytes]) -> None:
    # It is on this machine: no proxy of the environment knows it.
    opener = build_opener(ProxyHandler({}))
    deadline_s = time.monotonic() + start_s
    while True:
        has_ended = process.poll() is not None
        if not has_ended:
            with suppress(URLError, OSError), opener.open(health, timeout=1.0):
                return
        if has_ended or time.monotonic() > deadline_s:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()[-_MAX_LOG_CHARS:]
            what = "ended" if has_ended else f"did not answer within {start_s:g} s"
            raise RegistryError(f"MLflow's server {what}: {said or 'it said nothing'}")
        time.sleep(_POLL_S)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End the server and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The group lives as long as one of its processes does.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
