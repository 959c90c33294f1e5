"""Snapshots of the real runner: resumed from, of no use, and refused by the store."""

import threading
from pathlib import Path

import pytest

from orchestrator.errors import StoreError, StoreFull
from orchestrator.planning.spec import TaskSpec
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.worker.loop import LeaseLost
from orchestrator.train.worker.task_runner import TuneTask
from ship.backbone import Backbone
from ship.tuning.tuner import Tuner
from tests.unit.orchestrator.train.worker.factory import KEY, NUM_EPOCHS, Hooks


def test_a_published_task_is_done_whatever_happens_to_its_snapshot(
    backbone: Backbone, tmp_path: Path, spec: TaskSpec, caplog: pytest.LogCaptureFixture
) -> None:
    class KeepsSnapshots(LocalObjects):
        def delete(self, key: str) -> None:
            raise StoreError(f"{key}: no answer")

    store = PromptStore(KeepsSnapshots(tmp_path / "store"))
    run = TuneTask(Tuner(backbone), store)
    assert run(spec, Hooks()).created
    assert store.snapshots.load("shade", KEY) is not None
    assert "snapshots/shade" in caplog.text
    assert not run(spec, Hooks()).created, "nor when another worker takes it up again"

    healthy = PromptStore(LocalObjects(tmp_path / "store"))
    assert not TuneTask(Tuner(backbone), healthy)(spec, Hooks()).created
    assert healthy.snapshots.load("shade", KEY) is None, "left by a worker that died once it had published"


def test_goes_on_from_the_snapshot_of_a_worker_that_died(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, Hooks({11: LeaseLost()}))
    assert store.snapshots.load("shade", KEY) is not None
    hooks = Hooks()
    outcome = TuneTask(Tuner(backbone), store)(spec, hooks)
    assert hooks.epochs == [11, 12]
    assert outcome.metrics["epochs"] == NUM_EPOCHS
    assert store.snapshots.load("shade", KEY) is None


def test_starts_over_from_a_snapshot_that_is_of_no_use(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    store.snapshots.save("shade", KEY, b"not a snapshot")
    hooks = Hooks()
    TuneTask(Tuner(backbone), store)(spec, hooks)
    assert hooks.epochs[0] == 1
    assert store.snapshots.load("shade", KEY) is None


def test_a_snapshot_that_waited_until_the_lease_was_lost_is_not_written(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    def lose_meanwhile() -> None:
        if threading.current_thread().name.startswith("ship-snapshot"):
            raise LeaseLost("shade")

    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, Hooks(on_check=lose_meanwhile))
    assert store.snapshots.load("shade", KEY) is None


class NoSnapshots(LocalObjects):
    """A store that takes everything but snapshots."""

    def __init__(self, root: Path, error: StoreError) -> None:
        super().__init__(root)
        self.error = error

    def put_new(self, key: str, data: bytes) -> bool:
        if key.startswith("snapshots/"):
            raise self.error
        return super().put_new(key, data)


def test_snapshots_that_cannot_be_written_do_not_stop_the_tuning(
    backbone: Backbone, tmp_path: Path, spec: TaskSpec
) -> None:
    store = PromptStore(NoSnapshots(tmp_path, StoreError("read-only")))
    assert TuneTask(Tuner(backbone), store)(spec, Hooks()).created


def test_a_store_that_has_no_room_for_a_snapshot_ends_the_tuning(
    backbone: Backbone, tmp_path: Path, spec: TaskSpec
) -> None:
    store = PromptStore(NoSnapshots(tmp_path, StoreFull("quota reached")))
    with pytest.raises(StoreFull):
        TuneTask(Tuner(backbone), store)(spec, Hooks())
    assert store.published("shade", KEY) is None
