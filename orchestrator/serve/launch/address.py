"""Address of the endpoint: checked before anything is started."""

import ipaddress
import random
import socket
from collections.abc import Collection
from contextlib import suppress

from orchestrator.errors import ServeError

__all__ = ["check_port_is_free", "choose_port", "client_url", "is_loopback"]

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


# Between those of Ray's workers and those of Ray Serve's replicas, and below those that systems give to
# connections: one of these may be taken by any process before the server listens.
_CHOICE = range(20_000, 30_000)
_TRIES = 64
_chance = random.SystemRandom()


def choose_port(host: str, others: Collection[int] = ()) -> int:
    """A port that is free now, and that is given to nobody who does not name it.

    Args:
        host: Address to listen on.
        others: Ports that were chosen before.

    Raises:
        ServeError: ``host`` is no address of this machine.
    """
    # First, so that a name that is not known is looked up once.
    with _bind(host, 0) as listener:
        given = int(listener.getsockname()[1])
    for port in _chance.sample(_CHOICE, min(_TRIES, len(_CHOICE))):
        with suppress(ServeError):
            if port not in others:
                check_port_is_free(host, port)
                return port
    return given


def check_port_is_free(host: str, port: int) -> None:
    """Check that this process can listen on a port.

    Raises:
        ServeError: The port is taken, or not permitted.
    """
    _bind(host, port).close()


def client_url(host: str, port: int) -> str:
    """URL for clients on this machine."""
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; a name that is not known to be so may be reached by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    # As the server does: a port that was used a moment ago is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ServeError(
            f"cannot listen on {host}:{port}: {error}; choose another --port or --host"
        ) from error
    return listener
