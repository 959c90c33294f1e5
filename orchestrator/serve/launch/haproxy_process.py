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


def mend(config: str, *, pages: Collection[str], most: int, refusal: str) -> str:
    """The configuration with HAProxy's own pages, which need no token, on this machine alone; with a limit.

    Args:
        config: As Ray writes it, anew for each start.
        pages: Ports of the pages.
        most: Requests under way for each server; more are refused.
        refusal: File of the reply to those, a JSON document.
    """
    config = re.sub(rf"^( *bind )\*?:({'|'.join(pages)})$", r"\g<1>127.0.0.1:\2", config, flags=re.MULTILINE)
    refuse = (
        f"    http-request set-var(txn.most) nbsrv,mul({most})\n"
        f"    http-request return status 429 content-type application/problem+json file {refusal} "
        "hdr Retry-After 1 if { be_conn,sub(txn.most) -m int gt 0 }"
    )
    return _BACKEND.sub(lambda found: f"{found[1]}\n{refuse}", config)


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
