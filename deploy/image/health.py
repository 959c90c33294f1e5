"""Health check of the image: whether the endpoint that the container's command starts is ready.

Exit status 0 if it is, and in a container that starts none, such as one of ``ship tune``; else 1. A line says
why. SHIP_HEALTH_URL names what to ask in place of ``/readyz`` at the address in the command. The standard
library alone, since it runs every ten seconds.
"""

import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

TIMEOUT_S = 4.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def find_url(words: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """URL to ask; None if the command, in words, starts no endpoint and the environment names none."""
    if url := environment.get("SHIP_HEALTH_URL"):
        return url
    if "serve" not in words:
        return None
    host = find_option(words, "--host") or "127.0.0.1"
    host = LOOPBACK.get(host, host)
    port = find_option(words, "--port") or "8000"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/readyz"


def find_option(words: Sequence[str], name: str) -> str | None:
    """The option's last value, as ``--name VALUE`` or ``--name=VALUE``; None if it is not there."""
    found = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == name:
            found = following
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def main() -> int:
    """Ask, and say what came of it."""
    words = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    url = find_url(words, os.environ)
    if url is None:
        print("no endpoint in this container")
        return 0
    # Not by a proxy that the environment names for other hosts.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as reply:
            print(f"{url}: {reply.status}")
            return 0
    except (OSError, HTTPException, ValueError) as error:
        print(f"{url}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
