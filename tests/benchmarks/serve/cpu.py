"""CPU time of an endpoint's processes, which tells more than rates do where other work shares the cores."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import psutil

__all__ = ["cpu_seconds", "milliseconds_each"]

# Parts of a command line, the first that is found counts; Ray gives its processes titles.
_KINDS = {
    "Nothing": "nothing",
    ":Engine": "engine",
    ":Ingress": "ingress",
    "decode_process": "decode",
    "haproxy": "haproxy",
    "HAProxyManager": "proxy",
    "Proxy": "proxy",
}


def cpu_seconds() -> Counter[str]:
    """CPU time so far of this process (``clients``) and of those below it, by kind."""
    seconds: Counter[str] = Counter()
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.Error):
            times = process.cpu_times()
            kind = "clients" if process == own else _kind(" ".join(process.cmdline()))
            seconds[kind] += times.user + times.system
    return seconds


def milliseconds_each(before: Mapping[str, float], number: int) -> dict[str, float]:
    """CPU milliseconds of each kind since ``before`` for each of ``number`` requests."""
    now = cpu_seconds()
    spent = {kind: 1e3 * (now[kind] - before.get(kind, 0.0)) / max(1, number) for kind in now}
    return {kind: round(value, 2) for kind, value in sorted(spent.items()) if value >= 0.05}


def _kind(command: str) -> str:
    return next((kind for part, kind in _KINDS.items() if part in command), "ray and others")
