"""Program that Ray Serve starts as HAProxy: it mends the configuration and then becomes HAProxy.

Ray has no settings for what it mends. It needs nothing but the standard library.
"""

import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Collection
from pathlib import Path

__all__ = ["main", "mend"]

_SET_DEATH_SIGNAL = 1
# Ray's own backends answer by themselves.
_BACKEND = re.compile(r"^(backend (?!default_).+)$", re.MULTILINE)


def mend(config: str, *, pages: Collection[str], most: int, busy: int, refusal: str, repeat_ms: int) -> str:
    """The configuration with HAProxy's own pages, which need no token, on this machine alone; with limits.

    A refusal costs HAProxy a tenth of what it costs the ingress. Who is refused is the ingress's decision:
    HAProxy repeats it for a while to the same token about the same task, unless little is under way.

    Args:
        config: As Ray writes it, anew for each start.
        pages: Ports of the pages.
        most: Requests under way for each server; more are refused.
        busy: Requests under way for each server from which on a refusal (429) is repeated.
        refusal: File of the reply to what is refused here, a JSON document.
        repeat_ms: Milliseconds for which a refusal is repeated.
    """
    config = re.sub(rf"^( *bind )\*?:({'|'.join(pages)})$", r"\g<1>127.0.0.1:\2", config, flags=re.MULTILINE)
    refuse = (
        f"http-request return status 429 content-type application/problem+json file {refusal} "
        "hdr Retry-After 1 if"
    )
    lines = (
        f"stick-table type binary len 20 size 100k expire 1m store gpc0_rate({repeat_ms}ms)",
        f"http-request set-var(txn.most) nbsrv,mul({most})",
        f"http-request set-var(txn.busy) nbsrv,mul({busy})",
        f"{refuse} {{ be_conn,sub(txn.most) -m int gt 0 }}",
        'http-request set-var-fmt(txn.asker) "%[req.fhdr(authorization)] %[path] %[req.fhdr(ship-task)]"',
        "http-request track-sc0 var(txn.asker),sha1 if METH_POST",
        f"{refuse} METH_POST {{ sc0_gpc0_rate gt 0 }} {{ be_conn,sub(txn.busy) -m int gt 0 }}",
        "http-response sc-inc-gpc0(0) if { status 429 } { res.hdr_cnt(retry-after) gt 0 }",
    )
    rules = "".join(f"\n    {line}" for line in lines)
    return _BACKEND.sub(lambda found: found[1] + rules, config)


def main(settings: str, *arguments: str) -> None:
    """Become HAProxy.

    Args:
        settings: JSON of its ``binary`` and of what ``mend`` takes.
        arguments: HAProxy's own.
    """
    how = json.loads(settings)
    binary = how.pop("binary")
    for config in (Path(argument) for argument in arguments if argument.endswith(".cfg")):
        config.write_text(mend(config.read_text(), **how))
    if sys.platform == "linux":
        # Else it would hold its port when Ray is killed.
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
