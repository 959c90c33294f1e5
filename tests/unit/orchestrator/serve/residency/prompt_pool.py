"""A residency over a pool of so many bytes, whose prompts are nothing but their size."""

import asyncio
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from orchestrator.serve.engine_api import Ask, Refusal
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from ship.errors import PromptTooLargeError, SlotsFullError
from ship.runtime.slots import Slot

# What must happen at some time. Nothing waits for as long when it works.
PATIENCE_S = 60.0
EMPTY = torch.empty(0)


class Pool:
    """A pool of so many bytes for slots, which come back with the last reference to a slot."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes, self.used_bytes = capacity_bytes, 0
        self._lock = threading.RLock()

    def insert(self, num_bytes: int) -> Slot:
        if num_bytes > self.capacity_bytes:
            raise PromptTooLargeError(f"{num_bytes} bytes do not fit into {self.capacity_bytes}")
        with self._lock:
            if self.used_bytes + num_bytes > self.capacity_bytes:
                lacking_bytes = self.used_bytes + num_bytes - self.capacity_bytes
                raise SlotsFullError(f"{num_bytes} bytes do not fit beside {self.used_bytes}", lacking_bytes)
            self.used_bytes += num_bytes
        slot = Slot(
            keys_values_LP2=EMPTY,
            attribute_at={},
            num_attribute=(),
            prototypes_R=EMPTY,
            inverse_norm_R=EMPTY,
            head_CX=EMPTY,
            head_layers=(),
            num_tiles=1,
            low_rank={},
            low_rank_inputs={},
            bias_C=EMPTY,
            gate_L=EMPTY,
            attribute_mix=0.0,
            num_bytes=num_bytes,
        )
        weakref.finalize(slot, self._give_back, num_bytes)
        return slot

    def _give_back(self, num_bytes: int) -> None:
        with self._lock:
            self.used_bytes -= num_bytes


@dataclass
class Loader:
    """Loads into a pool as the real one does; holds loads of the tasks that it is told to hold."""

    pool: Pool
    num_bytes: Callable[[PromptRef], int] = lambda ref: 1
    errors: dict[str, Exception] = field(default_factory=dict)
    loads: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, ref: PromptRef, make_room: Callable[[int], bool]) -> ServedVersion:
        with self.lock:
            self.started[ref.digest] += 1
        if (gate := self.gates.get(ref.task)) is not None:
            assert gate.wait(PATIENCE_S)
        if error := self.errors.get(ref.digest):
            raise error
        slot = self._insert(self.num_bytes(ref), make_room)
        with self.lock:
            self.loads[ref.digest] += 1
        return ServedVersion(
            task=ref.task, version=ref.version, digest=ref.digest, labels=(ref.digest,), slot=slot
        )

    def _insert(self, num_bytes: int, make_room: Callable[[int], bool]) -> Slot:
        while True:
            try:
                return self.pool.insert(num_bytes)
            except PromptTooLargeError:
                raise
            except SlotsFullError as error:
                if not make_room(error.lacking_bytes):
                    raise


def catalog(**versions: int) -> Catalog:
    return Catalog(entries={task: entry(task, version) for task, version in versions.items()})


def entry(task: str, version: int, **more: object) -> CatalogEntry:
    return CatalogEntry(version=version, digest=f"{task}-{version}", **more)


def apply(residency: Residency, wanted: Catalog) -> None:
    """Bring memory in line with a catalog, and wait for what that loads."""
    residency.apply(wanted)
    assert residency.wait_loaded(PATIENCE_S)


def find(residency: Residency, task: str, **asked: object) -> ServedVersion | Refusal:
    return asyncio.run(residency.find(Ask(task=task, **asked)))


def in_memory(residency: Residency) -> set[str]:
    return {state.task for state in residency.states() if state.version is not None}


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


@contextmanager
def held(load: Loader, task: str) -> Iterator[threading.Event]:
    """Loads of a task do not end in the block, unless the event is set."""
    gate = load.gates[task] = threading.Event()
    try:
        yield gate
    finally:
        gate.set()


def make(capacity_bytes: int, **options: object) -> tuple[Residency, Loader]:
    load = Loader(Pool(capacity_bytes))
    options = {"load_wait_s": PATIENCE_S, "num_loaders": 1} | options
    return Residency(load, **options), load
