"""The Ray Serve session of the endpoint: used where the cluster runs one, else started and stopped.

A Ray Serve that was running already is left as it was found, applications of others included.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray import serve

from orchestrator.cluster.session import Session

__all__ = ["serve_session"]


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
    if session.is_own:
        # There is no Serve on it yet, but Serve may keep a handle of an earlier Ray in this process, which it
        # takes for one of this Ray. This makes it notice that the handle is dead.
        serve.shutdown()
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
        # On a Ray of our own it ends with Ray.
        if is_own and not session.is_own:
            serve.shutdown()
        elif not is_own:
            for name in application_names:
                # One that was never deployed is not there to delete.
                with suppress(ray.exceptions.RayError, serve.exceptions.RayServeException):
                    serve.delete(name)
