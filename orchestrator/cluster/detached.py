"""A local Ray that outlives the process that started it: ended by its folder, which its processes name."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import (
    enable_token_auth_by_default,
    ensure_token_if_auth_enabled,
)

from orchestrator.cluster.processes import end_processes, find_processes
from orchestrator.cluster.session import Session, ray_session, short_temp_dir
from orchestrator.cluster.variables import ROTATION
from orchestrator.errors import ClusterError

__all__ = ["DetachedRay", "end_detached", "joined_detached", "start_detached"]

_START_S = 120.0
_PREFIX = "ship-ray-"


@dataclass(frozen=True, kw_only=True)
class DetachedRay:
    """A Ray that was started.

    Attributes:
        address: Address by which this machine joins it.
        folder: Folder of its own; ended, it is gone.
    """

    address: str
    folder: Path


@contextmanager
def joined_detached(address: str) -> Iterator[Session]:
    """Join a detached Ray for the block.

    Raises:
        ClusterError: It cannot be joined.
    """
    _use_token()
    with ray_session(address) as session:
        yield session


def _use_token() -> None:
    """Have this process, and those that it starts, use this user's token of Ray, as a local Ray does.

    `ray start` asks for one by itself, and joining uses none; ``RAY_AUTH_MODE`` decides where it is set.
    """
    # It would say on each start that it does what it always does.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    enable_token_auth_by_default()
    ensure_token_if_auth_enabled(create_token_if_missing=True)


def start_detached(*, object_store_bytes: int) -> DetachedRay:
    """Start a Ray in a session of its own, on loopback alone.

    Raises:
        ClusterError: It cannot be started.
    """
    _use_token()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=short_temp_dir()))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0"),
        *(f"--temp-dir={folder}", f"--object-store-memory={object_store_bytes}"),
        # Of one machine nothing is scaled, and no driver prints the logs of its workers.
        *(
            "--include-dashboard=false",
            "--disable-usage-stats",
            "--no-monitor",
            "--include-log-monitor=false",
        ),
    ]
    # Without this Ray takes the address of the machine's network.
    environment = {**ROTATION, **os.environ, ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_START_S, start_new_session=True
        )
        if done.returncode:
            raise ClusterError(f"a local Ray could not be started: {(done.stderr or done.stdout)[-500:]}")
        return DetachedRay(address=(folder / "ray_current_cluster").read_text().strip(), folder=folder)
    except BaseException as error:
        end_detached(folder)
        if isinstance(error, OSError | subprocess.TimeoutExpired):
            raise ClusterError(f"a local Ray could not be started: {error}; free memory") from error
        raise


def end_detached(folder: Path) -> None:
    """End all processes of a Ray by its folder, and remove that. One that has ended already is no error."""
    if folder.name.startswith(_PREFIX):
        processes = find_processes(str(folder), psutil.process_iter())
        for process in processes:
            with suppress(psutil.Error):
                process.terminate()
        end_processes(processes)
        shutil.rmtree(folder, ignore_errors=True)
