"""The Ray Serve session of the endpoint: used where the cluster runs one, else started and stopped.

A Ray Serve that was running already is left as it was found, and so is one that others have come to use.
"""

from dataclasses import dataclass

from ray import serve
from ray.serve.context import _get_global_client, _set_global_client

from orchestrator.errors import ServeError

__all__ = ["ServePlace", "check_place", "end_unless_used", "forget_earlier_serve", "open_serve"]


@dataclass(frozen=True, kw_only=True)
class ServePlace:
    """Address of the proxy of a Ray Serve.

    Attributes:
        host: Host that it listens on.
        port: Port that it listens on.
        is_own: Whether it was started just now.
    """

    host: str
    port: int
    is_own: bool


def open_serve(host: str, port: int, *, is_any_port: bool) -> ServePlace:
    """Start Ray Serve on the Ray that this process has joined, or use the one that runs there.

    Args:
        host: Where the proxy is to listen.
        port: Where the proxy is to listen.
        is_any_port: Whether the port of a Ray Serve that runs already will do.

    Raises:
        ServeError: The Ray Serve of the cluster listens elsewhere.
    """
    forget_earlier_serve()
    if serve.status().proxies:
        config = _get_global_client().http_config
        found = ServePlace(host=str(config.host), port=int(config.port), is_own=False)
        check_place(found, host, None if is_any_port else port)
        return found
    serve.start(
        # On the head node, and on each node that has a replica.
        proxy_location="EveryNode",
        http_options={"host": host, "port": port},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    return ServePlace(host=host, port=port, is_own=True)


def forget_earlier_serve() -> None:
    """Have Ray Serve look for its controller anew.

    It keeps a handle in the process and tells Rays apart by their job's number, which is 1 on each local Ray:
    the handle of a Ray that has ended would be taken for one of the Ray at hand.
    """
    _set_global_client(None)


def check_place(found: ServePlace, host: str, port: int | None) -> None:
    """Check that the Ray Serve of a cluster listens where it is wanted: it has one proxy for all.

    Args:
        found: Where it listens.
        host: Where it is wanted: an endpoint for this machine alone must not be reachable from others.
        port: Where it is wanted; None for any port.

    Raises:
        ServeError: It listens elsewhere.
    """
    if (found.host, port or found.port) != (host, found.port):
        raise ServeError(
            f"this Ray cluster runs Ray Serve already, which listens at {found.host}:{found.port} for all "
            f"of its applications, not at {host}:{port or found.port}: serve there with --host {found.host} "
            f"--port {found.port}, or set RAY_ADDRESS to another cluster"
        )


def end_unless_used() -> None:
    """Shut Ray Serve down, unless an application is left on it."""
    if not serve.status().applications:
        serve.shutdown()
