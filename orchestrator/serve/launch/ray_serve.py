"""The Ray Serve session of the endpoint: used where the cluster runs one, else started and stopped.

A Ray Serve that was running already is left as it was found, other people's applications included.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray import serve
from ray.serve import context as serve_context

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
