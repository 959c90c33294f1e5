"""Priority of a Ray's workers for the operating system: Ray lowers it, as for work in the background."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants

__all__ = ["workers_at_usual_priority"]


@contextmanager
def workers_at_usual_priority() -> Iterator[None]:
    """Workers of a Ray that is started in the block have the priority of other programs, not ``nice`` 15.

    What the environment says about it stays.
    """
    name = ray_constants.RAY_WORKER_NICENESS
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
