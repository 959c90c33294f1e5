"""Environment variables of a Ray that is started here, where Ray's own defaults do not suit."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["ROTATION", "SERVING", "variables_of_ray"]

# Ray keeps 3 GB of each log.
ROTATION = {"RAY_ROTATION_MAX_BYTES": str(64 << 20), "RAY_ROTATION_BACKUP_COUNT": "2"}
SERVING = {
    # Ray's is 15, as for work in the background.
    "RAY_worker_niceness": "0",
    # Ray gives a proxy three times five seconds to start, then kills it, and Serve does not start.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}


@contextmanager
def variables_of_ray(variables: Mapping[str, str]) -> Iterator[None]:
    """A Ray that is started in the block has these variables; what the environment says of one stays."""
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ |= missing
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
