"""A Ray to run on: the one at ``RAY_ADDRESS``, the one this process has joined, or one of our own.

A Ray of our own lives in a folder of its own and is gone, with all of its processes, when the block ends.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from orchestrator.cluster.processes import end_processes, find_processes, start_in_two_tries
from orchestrator.errors import ExecutionError
from orchestrator.settings import Settings

__all__ = ["Session", "ray_session"]

# A socket's path holds at most 107 bytes, and Ray adds about 62 to its folder's.
MAX_TEMP_DIR_CHARS = 40

# Ray Train takes these from the driver's environment only. Two seconds between looks at the workers are
# long where a whole run takes minutes. Its watcher tells workers that call `report()` of a machine that is to
# be taken away; ours save snapshots anyway, and its process would take a core's seconds while they start.
_TRAIN_DEFAULTS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass(kw_only=True)
class Session:
    """A connection to Ray.

    Attributes:
        num_cpus: Of the whole cluster.
        num_gpus: Of the whole cluster.
        num_nodes: That are alive.
        keep_logs: Set it to have the logs of our own Ray kept in ``<home>/logs``.
    """

    num_cpus: int
    num_gpus: int
    num_nodes: int
    keep_logs: bool = False


@contextmanager
def ray_session(settings: Settings, run: str, num_workers: int | None) -> Iterator[Session]:
    """Join or start a Ray for the block.

    Args:
        settings: Where to find it, and where logs go.
        run: Name of the run, under which logs are kept.
        num_workers: A Ray of our own offers at least as many CPUs, if given.

    Raises:
        ExecutionError: Ray cannot be joined or started.
    """
    if ray.is_initialized():
        yield _describe()
        return
    for name, value in _TRAIN_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # It warns of its own default.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if settings.ray_address is not None:
        with _joined(settings.ray_address) as session:
            yield session
    else:
        with _started(settings.home / "logs" / run, num_workers) as session:
            yield session


@contextmanager
def _joined(address: str) -> Iterator[Session]:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="WARNING")
    # Ray raises whatever came up (RuntimeError, ConnectionError, ValueError, its own): one answer for all.
    except Exception as error:
        raise ExecutionError(
            f"RAY_ADDRESS={address}: cannot join this Ray ({error}); start it, or unset RAY_ADDRESS to "
            "have one started here"
        ) from error
    try:
        yield _describe()
    finally:
        ray.shutdown()


@contextmanager
def _started(logs: Path, num_workers: int | None) -> Iterator[Session]:
    folder = Path(tempfile.mkdtemp(prefix="ship-ray-", dir=_short_temp_dir()))
    try:
        _start(folder, num_workers)
        session = _describe()
        try:
            yield session
        except BaseException:
            session.keep_logs = True
            raise
        finally:
            started = find_processes(str(folder))
            ray.shutdown()
            # Ray does not wait for its workers.
            end_processes(started)
            if session.keep_logs:
                _copy_logs(folder, logs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, num_workers: int | None) -> None:
    available = len(os.sched_getaffinity(0))

    def start() -> None:
        try:
            ray.init(
                address="local",
                num_cpus=num_workers if num_workers is not None and num_workers > available else None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="WARNING",
                _temp_dir=str(folder),
            )
        except Exception:
            ray.shutdown()
            raise

    try:
        start_in_two_tries(start, str(folder))
    # As above: any of several exceptions.
    except Exception as error:
        raise ExecutionError(f"Ray could not be started here: {error}") from error


def _describe() -> Session:
    resources = ray.cluster_resources()
    return Session(
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
        num_nodes=sum(1 for node in ray.nodes() if node["Alive"]),
    )


def _short_temp_dir() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= MAX_TEMP_DIR_CHARS - len("/ship-ray-12345678") else "/tmp"


def _copy_logs(folder: Path, logs: Path) -> None:
    """Keep what Ray logged. Best effort: it is of use only to somebody who looks for a cause."""
    try:
        shutil.copytree(folder / "session_latest" / "logs", logs, dirs_exist_ok=True, symlinks=True)
    except (OSError, shutil.Error):
        logging.getLogger(__name__).warning("Ray's logs could not be copied to %s", logs)
