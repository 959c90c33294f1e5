"""The Ray session of a run or an endpoint.

It is the cluster at ``RAY_ADDRESS``, the one that this process has joined, or a local Ray that is started for
the session. A local Ray has a folder of its own, listens on loopback alone, and ends, with all of its
processes, at the end of the block.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from orchestrator.cluster.loopback import is_on_loopback, ray_on_loopback
from orchestrator.cluster.processes import end_processes, find_processes, start_in_two_tries
from orchestrator.cluster.reachable import check_reachable
from orchestrator.cluster.signals import deferred_signals
from orchestrator.cluster.variables import ROTATION, variables_of_ray
from orchestrator.errors import ClusterError
from orchestrator.private_files import make_private_folder, make_private_tree

__all__ = ["Session", "ray_session", "short_temp_dir"]

# A socket's path holds at most 107 bytes, and Ray adds about 62 to its folder's.
_MAX_TEMP_DIR_CHARS = 40
# Loggers whose warnings a user of a local Ray can do nothing about.
_VERBOSE_LOGGERS = ("ray._private.authentication", "ray.serve")
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Session:
    """A connection to Ray.

    Attributes:
        is_own: Whether this Ray was started for the session.
        num_cpus: CPUs of the whole cluster.
        num_gpus: GPUs of the whole cluster.
        num_nodes: Nodes that are alive.
        keep_logs: To be set if the logs of a local Ray shall be copied to ``logs`` at the end.
    """

    is_own: bool
    num_cpus: int
    num_gpus: int
    num_nodes: int = 1
    keep_logs: bool = False


@contextmanager
def ray_session(
    address: str | None,
    *,
    min_cpus: int | None = None,
    object_store_bytes: int | None = None,
    logs: Path | None = None,
) -> Iterator[Session]:
    """Join or start a Ray for the block.

    Args:
        address: Address of a cluster; None for the one that this process has joined, else a local Ray.
        min_cpus: Fewest CPUs that a local Ray offers, even if the machine has fewer.
        object_store_bytes: Size of a local Ray's object store; None for Ray's default.
        logs: Folder for a local Ray's logs, kept if the block raises or sets ``keep_logs``.

    Raises:
        ClusterError: Ray cannot be joined or started.
    """
    if ray.is_initialized():
        yield _describe(is_own=False)
        return
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    if address is not None:
        with _joined(address) as session:
            yield session
    else:
        options = {"num_cpus": _num_cpus(min_cpus), "object_store_memory": object_store_bytes}
        with _started(options, logs) as session:
            yield session


@contextmanager
def _joined(address: str) -> Iterator[Session]:
    if address not in ("auto", "local"):
        # Ray itself tries for a quarter of an hour, and says nothing.
        check_reachable("RAY_ADDRESS", address)
    with ray_on_loopback() if is_on_loopback(address) else nullcontext():
        try:
            _init(address=address)
        # Ray raises RuntimeError, ConnectionError, ValueError or its own: one answer for all.
        except Exception as error:
            raise ClusterError(
                f"RAY_ADDRESS={address}: this Ray cluster cannot be joined: {error}; start it, or unset "
                "RAY_ADDRESS to start a local Ray"
            ) from error
        try:
            yield _describe(is_own=False)
        finally:
            ray.shutdown()


@contextmanager
def _started(options: dict[str, Any], logs: Path | None) -> Iterator[Session]:
    folder = Path(tempfile.mkdtemp(prefix="ship-ray-", dir=short_temp_dir()))
    try:
        _start(folder, options)
        session = _describe(is_own=True)
        try:
            yield session
        except BaseException:
            session.keep_logs = True
            raise
        finally:
            started = find_processes(str(folder))
            # By itself Ray leaves a process that takes longer than a second to end unreaped.
            ray.shutdown(wait_for_processes=True)
            # Of those that Ray's own processes have started, such as workers, it waits for none.
            end_processes(started)
            if session.keep_logs and logs is not None:
                _copy_logs(folder, logs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, options: dict[str, Any]) -> None:
    def start() -> None:
        _init(address="local", include_dashboard=False, _temp_dir=str(folder), **options)

    try:
        # A start that a signal interrupts would leave processes behind.
        with deferred_signals(), ray_on_loopback(), variables_of_ray(ROTATION):
            start_in_two_tries(start, str(folder))
    # As above: any of several exceptions.
    except Exception as error:
        raise ClusterError(
            f"a local Ray could not be started: {error}; free memory and try again, or set RAY_ADDRESS to "
            "join a cluster"
        ) from error


def _init(**options: Any) -> None:
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    # Ray's own handler turns SIGTERM into SystemExit, from the middle of `ray.init` on.
    except BaseException:
        ray.shutdown(wait_for_processes=True)
        raise


def _num_cpus(min_cpus: int | None) -> int | None:
    available = len(os.sched_getaffinity(0))
    return min_cpus if min_cpus is not None and min_cpus > available else None


def _describe(*, is_own: bool) -> Session:
    resources = ray.cluster_resources()
    return Session(
        is_own=is_own,
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
        num_nodes=sum(1 for node in ray.nodes() if node["Alive"]),
    )


def short_temp_dir() -> str:
    """Folder for temporary files whose path leaves room for those of Ray's sockets."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _MAX_TEMP_DIR_CHARS - len("/ship-ray-12345678") else "/tmp"


def _copy_logs(folder: Path, logs: Path) -> None:
    """Keep Ray's logs for the diagnosis of a failure; best effort."""
    try:
        make_private_folder(logs)
        shutil.copytree(folder / "session_latest" / "logs", logs, dirs_exist_ok=True, symlinks=True)
        make_private_tree(logs)
    except (OSError, shutil.Error):
        _log.warning("Ray's logs could not be copied to %s", logs)
