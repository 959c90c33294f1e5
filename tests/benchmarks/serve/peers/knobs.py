"""Settings of a server under comparison, and the search for its best ones by measurement."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

__all__ = ["LAUNCH", "Knobs", "Launch", "find_best"]

# Environment variable in which a server finds its ``Launch``; worker processes inherit it.
LAUNCH = "PEERS_LAUNCH"


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Settings that every server's documents tell its users to try.

    Attributes:
        num_workers: Processes that hold the model.
        num_threads: Threads of torch in each.
        max_batch: Rows of a batch at most.
        wait_s: Seconds that the first row of a batch waits for others.
        fast: The server's own switch for many requests a second: LitServe's ``fast_queue``, HAProxy for
            Ray Serve and for ours.
        inside: Ours: the engine in the process of its ingress.
    """

    num_workers: int = 1
    num_threads: int = os.cpu_count() or 1
    max_batch: int = 32
    wait_s: float = 0.005
    fast: bool = False
    inside: bool = False

    def with_given(self, **given: Any) -> Self:
        """The same with other values."""
        return replace(self, **given)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a server is started with.

    Attributes:
        folder: Folder of the backbone, the adapters and the heads, see ``adapters.write_adapters``.
        tasks: Names of the tasks.
        port: TCP port on loopback.
        knobs: Its settings.
    """

    folder: str
    tasks: tuple[str, ...]
    port: int
    knobs: Knobs = Knobs()

    def to_json(self) -> str:
        """For the server's environment."""
        return json.dumps(asdict(self))

    @classmethod
    def from_env(cls) -> Self:
        """Undo ``to_json`` in the server's process."""
        values = json.loads(os.environ[LAUNCH])
        return cls(**{**values, "tasks": tuple(values["tasks"]), "knobs": Knobs(**values["knobs"])})


def find_best(
    start: Knobs, steps: Sequence[dict[str, Any]], measure: Callable[[Knobs], float]
) -> tuple[Knobs, dict[str, float]]:
    """Settings with the highest value found by changing them in turn and keeping what is better.

    Args:
        start: Settings to begin with.
        steps: Changes, tried one after the other on the best so far.
        measure: Answers a second under settings; 0 where they do not work.

    Returns:
        The best, and what was measured by change.
    """
    best, highest = start, measure(start)
    seen = {"start": highest}
    for step in steps:
        knobs = best.with_given(**step)
        found = measure(knobs)
        seen[", ".join(f"{name}={value}" for name, value in step.items())] = found
        if found > highest:
            best, highest = knobs, found
    return best, seen
