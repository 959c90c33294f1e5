"""A worker process that is paused (SIGSTOP): its task goes to another, and what it says later is refused."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path

import pytest

from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.worker.loop import Hooks, PublishedTask, run_worker
from tests.unit.orchestrator.train.fakes import Clock, Spec, epoch, status

LEASE_S = 60.0
# A worker process, whose task waits until it is told to go on, and then reports an epoch and its end.
WORKER = """
import sys
from multiprocessing.managers import BaseManager
from orchestrator.train.worker.loop import LeaseLost, PublishedTask, run_worker

BaseManager.register("ledger")
manager = BaseManager(address=sys.argv[1], authkey=b"test")
manager.connect()

def run(spec, hooks):
    print("under way", flush=True)
    sys.stdin.readline()
    try:
        hooks.epoch({"epoch": 1, "num_epochs": 1, "train_accuracy": 0.5})
    except LeaseLost:
        print("dropped", flush=True)
        raise
    return PublishedTask(digest="late", uri="file:///late")

print("completed", run_worker(manager.ledger(), run, worker="paused"), flush=True)
"""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger([Spec("bolts")], LedgerPolicy(lease_s=LEASE_S), clock)


@pytest.fixture
def paused(ledger: Ledger, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A worker process that has taken up the task; the ledger answers it from a thread of this process."""
    BaseManager.register("ledger", lambda: ledger)
    address = str(tmp_path / "ledger.sock")
    server = BaseManager(address=address, authkey=b"test").get_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "under way\n"
            yield process
        finally:
            process.kill()


def finish(spec: Spec, hooks: Hooks) -> PublishedTask:
    hooks.epoch(epoch(1, of=1))
    return PublishedTask(digest="good", uri="file:///good")


def test_a_paused_workers_task_goes_to_another_and_its_late_result_is_refused(
    ledger: Ledger, clock: Clock, paused: "subprocess.Popen[str]"
) -> None:
    os.kill(paused.pid, signal.SIGSTOP)
    clock.advance(LEASE_S + 1)
    assert run_worker(ledger, finish, worker="other", sleep=lambda _: ledger.close()) == 1
    os.kill(paused.pid, signal.SIGCONT)
    paused.stdin.write("go on\n")
    paused.stdin.flush()

    assert paused.stdout.readline() == "dropped\n"
    assert paused.stdout.readline() == "completed 0\n"
    found = status(ledger, "bolts")
    assert (found.state, found.worker, found.attempt) == ("done", "other", 2)
    events = [(event.kind, event.attempt) for event in ledger.read(0)[0]]
    assert events == [("leased", 1), ("retried", 1), ("leased", 2), ("epoch", 2), ("published", 2)]
