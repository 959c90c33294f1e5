"""The worker pool on a real Ray: workers die, tasks fail, and every task still ends exactly once.

The task runner is a cheap stand-in for tuning; everything around it is the real thing.
"""

import json
import os
import signal
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from ray.util import list_named_actors

from orchestrator.cluster.processes import end_processes
from orchestrator.manifest.floors import Floors
from orchestrator.manifest.model import PoolSettings, Terms
from orchestrator.settings import EXECUTORS, Executor, Settings
from orchestrator.train.executor import Callbacks, RunOptions, run_tasks
from orchestrator.train.ledger.actor import ACTOR_NAME
from orchestrator.train.ledger.grants import LedgerPolicy, StallLimits
from orchestrator.train.worker.loop import Hooks, PublishedTask, WorkerContext
from ship.errors import DataError
from ship.settings.config import TuneConfig

# Ray Train imports Ray Data, which warns of its own settings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

NUM_EPOCHS = 3
MARK = "WORKER_POOL_TEST"
RECOVERED = "the driver saw that the killed worker's task was published"


@dataclass(frozen=True)
class Spec:
    """As much of a TaskSpec as pool and ledger look at."""

    name: str
    key: str
    num_images: int
    config: TuneConfig = field(default_factory=lambda: TuneConfig(epochs=NUM_EPOCHS))
    search: None = None
    terms: Terms = field(default_factory=Terms)
    floors: Floors = field(default_factory=Floors)


class Weights:
    """As much of a backbone as the pool looks at."""

    def to_arrays(self):
        return {"name": "none"}, {"weight": np.arange(1000, dtype=np.float32)}


@dataclass(frozen=True)
class FakeRunner:
    """Writes a file per published task; kills its own process or fails where the task's name says so."""

    folder: Path

    def __call__(self, spec: Spec, hooks: Hooks) -> PublishedTask:
        if spec.name.startswith("pair-"):
            self._meet(spec.name, hooks)
        if spec.name == "hangs" and self._is_first_time(spec.name):
            hooks.enter("data")
            with hooks.doing("nfs/a.png"):
                threading.Event().wait()
        if spec.name == "corrupt":
            raise DataError("train/broken.png: not an image")
        for epoch in range(1, NUM_EPOCHS + 1):
            hooks.epoch({"epoch": epoch, "num_epochs": NUM_EPOCHS, "train_accuracy": epoch / NUM_EPOCHS})
            if spec.name == "kills-worker" and self._is_first_time(spec.name):
                os.kill(os.getpid(), signal.SIGKILL)
        if spec.name == "kills-ledger":
            self._wait_for(RECOVERED)
            if self._is_first_time(spec.name):
                kill_ledger()
        hooks.check()
        return self._publish(spec)

    def _publish(self, spec: Spec) -> PublishedTask:
        """The first writer wins, as in the store."""
        marker = self.folder / f"{spec.name}.json"
        try:
            with marker.open("x") as file:
                json.dump({"pid": os.getpid()}, file)
        except FileExistsError:
            return PublishedTask(digest=spec.key, uri=str(marker), created=False)
        return PublishedTask(digest=spec.key, uri=str(marker))

    def _meet(self, name: str, hooks: Hooks) -> None:
        """Two tasks of one worker at a time; the first pair brings it down."""
        mine = self.folder / f"{name}.{os.getpid()}"
        mine.touch()
        hooks.started()
        if self._is_first_time(name):
            while len(list(self.folder.glob(f"pair-*.{os.getpid()}"))) < 2:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

    def _wait_for(self, file: str) -> None:
        while not (self.folder / file).exists():
            time.sleep(0.05)

    def _is_first_time(self, name: str) -> bool:
        try:
            (self.folder / f"{name}.started").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def kill_ledger() -> None:
    """End the ledger's process as a crash would: Ray starts it again, and it knows nothing."""
    [actor] = [actor for actor in list_named_actors(all_namespaces=True) if actor["name"] == ACTOR_NAME]
    ray.kill(ray.get_actor(**actor), no_restart=False)


def make_fake_runner(context: WorkerContext) -> FakeRunner:
    weight = context.arrays["weight"]
    assert not weight.flags.writeable, "a view of the object store, not a copy"
    assert weight.sum() == np.arange(1000).sum()
    return FakeRunner(Path(context.store_url))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # Workers import this module, for the classes above.
    root = Path(__file__).parents[__name__.count(".")]
    monkeypatch.setenv("PYTHONPATH", str(root), prepend=os.pathsep)
    monkeypatch.setenv(MARK, uuid.uuid4().hex)
    return Settings(
        home=tmp_path / "home", store=str(tmp_path / "store"), tracking_uri="unused", ray_address=None
    )


def marked_processes() -> set[int]:
    """Processes that inherited this test's mark: every one that its Ray started."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        # Gone, or another user's.
        with suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found.add(int(entry.name))
    return found


@pytest.mark.parametrize("executor", EXECUTORS)
def test_all_tasks_end_though_a_worker_is_killed_and_a_data_set_is_corrupt(
    settings: Settings, executor: Executor
) -> None:
    store = Path(settings.store)
    store.mkdir()
    names = ["kills-worker", "corrupt", "one", "two", "three", "kills-ledger"]
    specs = [Spec(name, f"{number:064x}", num_images=100 - number) for number, name in enumerate(names)]
    events = []
    statuses = []

    def listen(news) -> None:
        events.extend(news)
        if any((event.kind, event.task) == ("published", "kills-worker") for event in news):
            (store / RECOVERED).touch()

    summary = run_tasks(
        specs,
        Weights(),
        settings,
        RunOptions(
            pool=PoolSettings(max_workers=2, executor=executor),
            policy=LedgerPolicy(backoff_s=0.1),
            make_runner=make_fake_runner,
        ),
        Callbacks(on_events=listen, on_progress=statuses.append),
    )

    good = set(names) - {"corrupt"}
    assert set(summary.done) == good
    assert summary.failed == {"corrupt": "train/broken.png: not an image"}
    assert not summary.is_interrupted
    assert {path.stem for path in store.glob("*.json")} == good
    published = Counter(event.task for event in events if event.kind == "published")
    assert published == Counter(good)
    assert [event.task for event in events if event.kind == "failed"] == ["corrupt"]
    retried = [event for event in events if event.kind == "retried" and event.task == "kills-worker"]
    assert len(retried) == 1
    assert "worker died" in retried[0].data["cause"]
    assert (store / "kills-ledger.started").exists()
    if executor == "actors":
        leases = [event for event in events if event.kind == "leased"]
        killed = next(event.data["worker"] for event in leases if event.task == "kills-worker")
        seat = killed.partition("@")[0]
        others = {event.data["worker"] for event in leases if event.data["worker"].partition("@")[0] != seat}
        assert len(others) == 1, "the other process works on"
    assert statuses[-1].all_ended
    assert not ray.is_initialized()
    assert marked_processes() == set()
    assert any((settings.home / "logs").iterdir()), "a run with failures keeps Ray's logs"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_tasks_of_a_pack_that_brought_its_worker_down_are_taken_up_alone(
    settings: Settings, executor: Executor
) -> None:
    store = Path(settings.store)
    store.mkdir()
    names = ["pair-1", "pair-2", "last"]
    specs = [Spec(name, f"{number:064x}", num_images=100 - number) for number, name in enumerate(names)]
    events, statuses = [], []
    summary = run_tasks(
        specs,
        Weights(),
        settings,
        RunOptions(pool=PoolSettings(max_workers=1, executor=executor), make_runner=make_fake_runner),
        Callbacks(on_events=events.extend, on_progress=statuses.append),
    )
    assert set(summary.done) == set(names)
    [first, second] = (
        [event for event in events if event.task == name and event.kind == "retried"] for name in names[:2]
    )
    assert len(first) == len(second) == 1
    assert first[0].data["cause"].startswith("its worker died, with 1 other task: ")
    suspects = {status.task for status in statuses[-1].tasks if status.is_suspect}
    assert suspects == {"pair-1", "pair-2"}
    assert all(status.failures == 0 for status in statuses[-1].tasks), "the task at fault is not known"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_process_whose_task_hangs_is_ended_and_the_task_goes_to_another(
    settings: Settings, executor: Executor
) -> None:
    Path(settings.store).mkdir()
    specs = [Spec("hangs", f"{1:064x}", num_images=100), Spec("good", f"{2:064x}", num_images=10)]
    events = []
    summary = run_tasks(
        specs,
        Weights(),
        settings,
        RunOptions(
            pool=PoolSettings(max_workers=1, executor=executor),
            policy=LedgerPolicy(lease_s=20.0, stall=StallLimits(data_s=10.0), backoff_s=0.1),
            make_runner=make_fake_runner,
        ),
        Callbacks(on_events=events.extend),
    )
    assert set(summary.done) == {"hangs", "good"}
    leases = [event.data["worker"] for event in events if (event.kind, event.task) == ("leased", "hangs")]
    assert len(set(leases)) == 2, "in another process"
    [retried] = [event for event in events if event.kind == "retried" and event.task == "hangs"]
    assert retried.data["cause"] == "no progress for 10 s while reading its data (nfs/a.png)"
    assert marked_processes() == set()


def test_an_actor_that_had_no_room_is_not_started_when_all_is_done(settings: Settings) -> None:
    Path(settings.store).mkdir()
    specs = [Spec(name, f"{number:064x}", num_images=10) for number, name in enumerate(["one", "two"])]
    statuses = []
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        summary = run_tasks(
            specs,
            Weights(),
            settings,
            RunOptions(pool=PoolSettings(max_workers=2, executor="actors"), make_runner=make_fake_runner),
            Callbacks(on_progress=statuses.append),
        )
    finally:
        started = [psutil.Process(pid) for pid in marked_processes()]
        ray.shutdown(wait_for_processes=True)
        end_processes(started)
    assert set(summary.done) == {"one", "two"}
    assert set(statuses[-1].workers) == {0}, "the other would have found nothing left"
