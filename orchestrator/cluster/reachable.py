"""Check that something listens at an address of the environment, which takes seconds at most."""

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from orchestrator.errors import ClusterError
from ship.redaction import Url

__all__ = ["check_reachable"]

_TIMEOUT_S = 5.0
_PORTS = {"http": 80, "https": 443, "ray": 10001}


def check_reachable(
    name: str, address: str, connect: Callable[..., socket.socket] = socket.create_connection
) -> None:
    """Check that a connection can be made; an address without host and port is left alone.

    Args:
        name: Variable of the environment that gives it, for the message.
        address: ``HOST:PORT`` or a URL.
        connect: Makes the connection.

    Raises:
        ClusterError: Nothing answers there, or the address is none.
    """
    text = Url(address)
    try:
        parts = urlsplit(text.reveal() if "://" in text else f"//{text.reveal()}")
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise ClusterError(f"{name}={text}: expected HOST:PORT or a URL: {error}") from None
    if host is None or port is None:
        return
    try:
        with connect((host, port), timeout=_TIMEOUT_S):
            return
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ClusterError(
            f"{name}={text}: nothing answers at {host}:{port} ({reason}); start it, or correct or "
            f"unset {name}"
        ) from None
