"""A loader of prompts that are nothing but their names, and a clock that stands still."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.serve.residency.served import PromptRef, ServedVersion
from ship.runtime.slots import Slot

__all__ = ["Clock", "Loader", "digest"]


def digest(task: str, version: int) -> str:
    return f"{task}-{version}"


@dataclass
class Loader:
    """Makes served tasks that say of themselves what they are; fails for the digests it is told to."""

    slot: Slot
    errors: dict[str, Exception] = field(default_factory=dict)
    loads: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, ref: PromptRef, make_room: Callable[[int], bool]) -> ServedVersion:
        with self.lock:
            self.loads[ref.digest] += 1
        if error := self.errors.get(ref.digest):
            raise error
        return ServedVersion(
            task=ref.task, version=ref.version, digest=ref.digest, labels=(ref.digest,), slot=self.slot
        )


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s
