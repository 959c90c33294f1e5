"""The Ray and the Ray Serve that the endpoint runs on: joined where there is one, else started and stopped.

What was joined is left as it was found, other people's applications included.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import context as serve_context

from orchestrator.cluster.processes import end_processes, find_processes, start_in_two_tries
from orchestrator.cluster.signals import deferred_signals
from orchestrator.errors import ServeError

__all__ = ["Session", "ray_session", "serve_session"]

# A socket's path holds at most 107 bytes, and Ray adds about 62 to its folder's.
_MAX_TEMP_DIR_CHARS = 40
# Prompts and images in flight, beside the backbone. Ray's own default is 30% of the machine's memory.
_OBJECT_STORE_BYTES = 512 << 20


@dataclass(frozen=True, kw_only=True)
class Session:
    """A connection to Ray.

    Attributes:
        is_own: It was started for us alone.
        num_cpus: Of the whole cluster.
        num_gpus: Of the whole cluster.
    """

    is_own: bool
    num_cpus: int
    num_gpus: int


@contextmanager
def ray_session(address: str | None, num_bytes: int) -> Iterator[Session]:
    """Join the Ray at ``address``, or the one that this process has joined, or start one for the block.

    Args:
        address: Of a cluster; None for a Ray of our own.
        num_bytes: What will be kept in its object store for as long as it runs.

    Raises:
        ServeError: Ray cannot be joined or started.
    """
    if ray.is_initialized():
        yield _describe(is_own=False)
        return
    # Both tell at length what is of no use to who runs an endpoint.
    for name in ("ray._private.authentication", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    folder = tempfile.mkdtemp(prefix="ship-ray-", dir=_short_temp_dir())
    try:
        _connect(address, folder, num_bytes)
        try:
            yield _describe(is_own=address is None)
        finally:
            started = find_processes(folder)
            ray.shutdown()
            # Ray does not wait for its workers.
            end_processes(started)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serve_session(
    session: Session, host: str, port: int, application_names: tuple[str, ...]
) -> Iterator[bool]:
    """Start Ray Serve for the block, or use the one that the cluster runs; yields whether it was started.

    Args:
        session: The Ray that it runs on.
        host: Where the proxy listens, if it is started.
        port: Where the proxy listens, if it is started.
        application_names: Ours, removed at the end.
    """
    is_own = not serve.status().proxies
    if is_own:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
    try:
        yield is_own
    finally:
        if session.is_own:
            # It ends with Ray. `serve.shutdown` would do it at length and print an error of its own making,
            # but without it Serve keeps a handle that it mistakes for one of the next Ray in this process.
            serve_context._disconnect()
        elif is_own:
            serve.shutdown()
        else:
            for name in application_names:
                # One that was never deployed is not there to delete.
                with suppress(ray.exceptions.RayError, serve.exceptions.RayServeException):
                    serve.delete(name)


def _connect(address: str | None, folder: str, num_bytes: int) -> None:
    try:
        if address is not None:
            _init(address=address)
        else:
            # Broken off half-way, it would leave processes that nobody knows of.
            with deferred_signals():
                start_in_two_tries(
                    lambda: _init(
                        address="local",
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE_BYTES + 2 * num_bytes,
                        _temp_dir=folder,
                    ),
                    folder,
                )
    # Ray raises whatever came up (RuntimeError, ConnectionError, ValueError, its own): one answer for all.
    except Exception as error:
        where = (
            f"RAY_ADDRESS={address}: this Ray cannot be joined" if address else "Ray cannot be started here"
        )
        raise ServeError(f"{where}: {error}; start it, or unset RAY_ADDRESS to have one started") from error


def _init(**options: Any) -> None:
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    # SystemExit is what Ray's own handler makes of SIGTERM, from the middle of `ray.init` on.
    except BaseException:
        ray.shutdown()
        raise


def _describe(*, is_own: bool) -> Session:
    resources = ray.cluster_resources()
    return Session(
        is_own=is_own, num_cpus=int(resources.get("CPU", 0)), num_gpus=int(resources.get("GPU", 0))
    )


def _short_temp_dir() -> str:
    usual = Path(tempfile.gettempdir())
    return (
        str(usual) if len(str(usual)) <= _MAX_TEMP_DIR_CHARS - len("/ship-ray-12345678") else os.sep + "tmp"
    )
