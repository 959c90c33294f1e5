"""Sizes at which Ray rotates its logs, for each Ray that is started here; Ray's own keep 3 GB of each log."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ROTATION", "rotating_logs"]

ROTATION = {"RAY_ROTATION_MAX_BYTES": str(64 << 20), "RAY_ROTATION_BACKUP_COUNT": "2"}


@contextmanager
def rotating_logs() -> Iterator[None]:
    """A Ray that is started in the block rotates its logs at these sizes; what the environment says stays."""
    missing = {name: value for name, value in ROTATION.items() if name not in os.environ}
    os.environ |= missing
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
