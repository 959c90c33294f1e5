"""Stand-ins for tasks, clocks and stores."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from orchestrator.events import Event
from orchestrator.manifest.floors import Floors
from orchestrator.manifest.model import Terms
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.train.ledger.failures import Failure
from orchestrator.train.ledger.grants import Lease, LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.ledger.status import TaskStatus
from orchestrator.train.run.folder import RunFolder
from orchestrator.train.worker.loop import TaskRunner, run_worker
from ship.settings.config import TuneConfig

LATER = Failure(cause="the store is away", is_retryable=True)


@dataclass(frozen=True)
class Spec:
    """As much of a TaskSpec as ledger and worker look at."""

    name: str
    num_images: int = 100
    config: TuneConfig = field(default_factory=TuneConfig)
    search: None = None
    terms: Terms = field(default_factory=Terms)
    floors: Floors = field(default_factory=Floors)

    @property
    def key(self) -> str:
        return f"{self.name:0>64}"


class CountedObjects:
    """A store of objects that counts its requests by their kind."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self.url = objects.url
        self.requests: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self.requests[name] += 1
        return getattr(self.objects, name)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def epoch(number: int, of: int = 100, **values: float) -> dict[str, float]:
    return {"epoch": number, "num_epochs": of, "train_accuracy": 0.5, "val_accuracy": None, **values}


def work(ledger: Ledger, run: TaskRunner, *, sleep: Callable[[float], object] = lambda seconds: None) -> int:
    """A worker's life, beside a driver that closes the ledger as soon as all tasks have ended."""

    def wait(seconds: float) -> None:
        if ledger.status().all_ended:
            ledger.close()
        sleep(seconds)

    return run_worker(ledger, run, worker="w", sleep=wait)


@contextmanager
def driven(folder: RunFolder, ledger: Ledger) -> Iterator[None]:
    """A driver in a thread, which does what other terminals ask of the run, until the end of the block."""
    is_over = threading.Event()

    def drive() -> None:
        while not is_over.wait(0.01):
            for request, answer in folder.requests():
                change = ledger.cancel if request.kind == "cancel" else ledger.retry
                changed = change(request.tasks) if request.kind != "stop" else ()
                folder.show(ledger.status())
                # Writes the status now, and not a second after the last one.
                folder.close()
                answer(changed)

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        yield
    finally:
        is_over.set()
        driver.join()


def make_ledger(clock: Clock, *names: str, **policy: float) -> Ledger:
    specs = [Spec(name, num_images=1000 - number) for number, name in enumerate(names)]
    return Ledger(specs, LedgerPolicy(**policy), clock, wall=clock)


def leased_ledger(*names: str) -> Ledger:
    """A ledger whose first task a worker has leased."""
    ledger = Ledger([Spec(name) for name in names], LedgerPolicy(), Clock())
    ledger.join("worker-0@host:1", 0, 1)
    ledger.lease("worker-0@host:1")
    return ledger


def make_event(kind: str, task: str = "caps", **data: object) -> Event:
    return Event(kind=kind, task=task, key="0" * 64, attempt=1, time_s=0.0, data=data)


def take(ledger: Ledger, worker: str = "w") -> Lease:
    grant = ledger.lease(worker)
    assert isinstance(grant, Lease), grant
    return grant


def status(ledger: Ledger, name: str) -> TaskStatus:
    return next(status for status in ledger.status().tasks if status.task == name)
