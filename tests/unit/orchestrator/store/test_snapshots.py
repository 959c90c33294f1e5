"""Snapshots of tunings: replaced by the worker that holds the task, dropped once it is published."""

import pytest

from orchestrator.errors import ObjectConflict
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.store.factory import make_artifact, make_key

KEY = make_key("bolts")


def test_snapshots_come_and_go(objects: ObjectStore) -> None:
    store = PromptStore(objects)

    assert store.snapshots.load("bolts", KEY) is None
    store.snapshots.save("bolts", KEY, b"1")
    store.snapshots.save("bolts", KEY, b"2")
    assert store.snapshots.load("bolts", KEY) == b"2"
    store.snapshots.drop("bolts", KEY)
    store.snapshots.drop("bolts", KEY)
    assert store.snapshots.load("bolts", KEY) is None


def test_a_worker_that_lost_its_task_does_not_overwrite_its_successors_snapshot(objects: ObjectStore) -> None:
    late, successor = PromptStore(objects), PromptStore(objects)
    late.snapshots.load("bolts", KEY)
    late.snapshots.save("bolts", KEY, b"epoch 1")
    assert successor.snapshots.load("bolts", KEY) == b"epoch 1"
    successor.snapshots.save("bolts", KEY, b"epoch 2")

    with pytest.raises(ObjectConflict, match="another worker"):
        late.snapshots.save("bolts", KEY, b"epoch 1 again")

    assert successor.snapshots.load("bolts", KEY) == b"epoch 2"


def test_a_successor_prevails_over_a_snapshot_that_came_between(objects: ObjectStore) -> None:
    late, successor = PromptStore(objects), PromptStore(objects)
    late.snapshots.save("bolts", KEY, b"epoch 1")
    successor.snapshots.load("bolts", KEY)
    late.snapshots.save("bolts", KEY, b"epoch 2, too late")

    with pytest.raises(ObjectConflict):
        successor.snapshots.save("bolts", KEY, b"epoch 3")
    successor.snapshots.save("bolts", KEY, b"epoch 4")

    assert successor.snapshots.load("bolts", KEY) == b"epoch 4"


def test_a_snapshot_that_was_dropped_is_not_brought_back(objects: ObjectStore) -> None:
    late, successor = PromptStore(objects), PromptStore(objects)
    late.snapshots.save("bolts", KEY, b"epoch 1")
    successor.publish("bolts", KEY, make_artifact())

    with pytest.raises(ObjectConflict):
        late.snapshots.save("bolts", KEY, b"epoch 2")

    assert successor.snapshots.load("bolts", KEY) is None
