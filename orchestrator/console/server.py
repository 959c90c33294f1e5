"""The console as a server in a thread of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

from orchestrator.console.access import Access, hosts_of
from orchestrator.console.app import make_app
from orchestrator.console.services import Services
from orchestrator.errors import ManifestError, ServeError
from orchestrator.serve.launch.address import check_port_is_free, client_url, is_loopback
from ship.errors import ShipError

__all__ = ["can_sign_in", "check_console", "running_console"]

_END_S = 5.0


def check_console(host: str, port: int, *, auth: bool) -> None:
    """Check that a console may listen there, and can.

    Raises:
        ManifestError: Others than this machine would reach one without access control.
        ServeError: The port is taken.
    """
    if not auth and not is_loopback(host):
        raise ManifestError(
            f"--no-auth: at {host} others than this machine's users would decide what serves; leave it out, "
            "or listen on 127.0.0.1"
        )
    check_port_is_free(host, port)


@contextmanager
def running_console(
    services: Services, host: str, port: int, *, auth: bool = True, allowed_hosts: tuple[str, ...] = ()
) -> Iterator[str]:
    """The console, which answers from the start of the block to its end; gives its URL.

    Args:
        services: What its pages read and change.
        host: Address that it listens on.
        port: Its port.
        auth: Whether people sign in.
        allowed_hosts: Further names that it is reached by, such as that of a proxy with TLS.

    Raises:
        ManifestError: See ``check_console``.
        ServeError: It cannot listen there.
    """
    check_console(host, port, auth=auth)
    app = make_app(services, Access(auth=auth, hosts=hosts_of(host, allowed_hosts)))
    server = uvicorn.Server(
        uvicorn.Config(
            app, host, port, log_level="warning", access_log=False, server_header=False, lifespan="off"
        )
    )
    thread = threading.Thread(target=server.run, name="console", daemon=True)
    thread.start()
    # The first listing of a registry takes longest.
    threading.Thread(target=_warm_up, args=(services,), name="console-warm-up", daemon=True).start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise ServeError(f"cannot listen on {host}:{port}; choose another --port or --host")
            time.sleep(0.01)
        yield client_url(host, port)
    finally:
        server.should_exit = True
        thread.join(_END_S)


def _warm_up(services: Services) -> None:
    # A page says what is wrong.
    with suppress(ShipError):
        services.tasks()


def can_sign_in(services: Services) -> bool:
    """Whether a live token has access to the console."""
    tokens, now_s = services.tokens().by_name.values(), services.clock()
    return any(one.is_live(now_s) and (one.scope.admin or one.scope.console) for one in tokens)
