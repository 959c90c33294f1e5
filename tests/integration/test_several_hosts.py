"""Tuning on several hosts, while workers, hosts, the network, MLflow, the driver and the store fail.

Each host is a network namespace with an address of its own; Ray, S3 (Ceph's gateway), MLflow and the command
are the real ones. Where there is no root, no iproute2 or no Ceph, the tests skip and say so.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.events import Event
from orchestrator.settings import EXECUTORS, Executor
from tests.integration.batch import WRITTEN, Batch, place_of
from tests.integration.cluster import Cluster, clean_environment
from tests.integration.hosts import skip_without_namespaces
from tests.integration.plant import Plant

# Generous: a run that hangs fails by a limit of its own, with what it printed.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

OUTAGE_S = 60.0
ACTORS = ("--workers", "2", "--executor", "actors")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    skip_without_namespaces()
    with Cluster(["a", "b", "c"]) as cluster:
        yield cluster


@pytest.fixture
def make_batch(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], Batch]]:
    """Makes so many tasks, in a place of their own in the store; the environment leads there, too."""
    batches = []
    environment = {**clean_environment(), **cluster.variables}
    for name in [name for name in environment if name.startswith("AWS_")]:
        monkeypatch.setenv(name, environment[name])

    def make(num_tasks: int) -> Batch:
        store_url = f"{cluster.variables['SHIP_STORE']}/{tmp_path.name}"
        plant = Plant(tmp_path, cluster.head.prefix)
        plant.environment = environment | {
            "SHIP_HOME": str(plant.home),
            "SHIP_STORE": store_url,
            "SHIP_CACHE": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        # All tests share one registry.
        tasks = [f"{tmp_path.name.replace('_', '-')[-12:]}-{number}" for number in range(num_tasks)]
        batches.append(Batch(plant, tasks, store_url, cluster.variables["MLFLOW_TRACKING_URI"]))
        return batches[-1]

    yield make
    for batch in batches:
        batch.end()


def test_no_mlflow_a_killed_driver_and_a_minute_without_the_store(
    cluster: Cluster, make_batch: Callable[[int], Batch]
) -> None:
    cluster.stop_tracking()
    cluster.set_nodes(2)
    batch = make_batch(5)

    run = batch.start(*ACTORS)
    batch.wait_for_loss(run)
    batch.kill(run)
    run = batch.start(*ACTORS)
    batch.wait_until("a task is half done", run, batch.half_done)
    early = {status.task for status in batch.at_work() if status.epoch <= WRITTEN}
    cluster.store.cut()
    try:
        time.sleep(OUTAGE_S)
    finally:
        cluster.store.join()
    printed = batch.finish(run)

    assert run.returncode == 0, printed
    assert "records wait in" in printed
    assert f"MLflow at {cluster.variables['MLFLOW_TRACKING_URI']} did not" in printed
    assert all("cannot" in cause and "check the network" in cause for cause in batch.causes("retried"))
    assert batch.causes("failed") == []
    batch.check_published_once()
    batch.check_epochs(without_snapshot=early)

    cluster.start_tracking()
    run = batch.start()
    printed = batch.finish(run)
    assert run.returncode == 0, printed
    assert "Nothing to do: all 5 tasks are in the store already" in printed
    batch.check_published_once()
    batch.check_epochs(without_snapshot=early)
    batch.check_records()


def is_taken_up_again(log: list[Event]) -> bool:
    """Whether a worker has the task that was the first to lose its worker."""
    lost = next((event for event in log if event.kind == "retried"), None)
    leases = [event for event in log if event.kind == "leased" and event.attempt > 1]
    return lost is not None and lost.task in {event.task for event in leases}


def workers_of(log: list[Event]) -> set[str]:
    """Workers that took up tasks."""
    return {event.data["worker"] for event in log if event.kind == "leased"}


def hosts_of(log: list[Event]) -> set[str]:
    """Hosts on which tasks were taken up."""
    return {place_of(worker)[0] for worker in workers_of(log)}


def hosts_just_begun(batch: Batch, leaving: set[str]) -> set[str]:
    """Hosts with a task that has just begun: one that is about to end may have ended when its node does.

    Args:
        batch: Its tasks.
        leaving: Workers that will not live to finish theirs anyway.
    """
    return {place_of(status.worker or "")[0] for status in batch.just_begun() if status.worker not in leaving}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_is_killed_a_node_comes_and_another_goes(
    cluster: Cluster, make_batch: Callable[[int], Batch], executor: Executor
) -> None:
    cluster.start_tracking()
    cluster.set_nodes(2)
    first, newcomer = set(cluster.nodes), cluster.spare
    batch = make_batch(9)

    run = batch.start("--workers", "3", "--executor", executor)
    batch.wait_until("a task is half done", run, batch.half_done)
    cluster.add_nodes(newcomer)
    struck = batch.wait_for_loss(run)
    before = workers_of(batch.log())
    os.kill(place_of(struck.worker or "")[1], signal.SIGKILL)
    batch.wait_until("its task is taken up again", run, lambda: is_taken_up_again(batch.log()))
    if executor == "actors":
        leaving = set()
        batch.wait_until("the new node works", run, lambda: newcomer in hosts_of(batch.log()))
    else:
        # Ray Train ends all its workers, a while after the ledger has heard of the death of one, and lets the
        # new node in when it starts them again.
        leaving = before
    begun = batch.wait_until("a task has begun", run, lambda: first & hosts_just_begun(batch, leaving))
    lost = begun.pop()
    cluster.lose_node(lost)
    printed = batch.finish(run)

    assert run.returncode == 0, printed
    assert hosts_of(batch.events) == {*first, newcomer}
    causes = "\n".join(batch.causes("retried"))
    died = r"its worker died(, with \d+ other tasks?)?: "
    assert re.search(f"{died}Worker unexpectedly exits", causes), causes
    assert re.search(f"{died}its node {re.escape(cluster.address(lost))} has died", causes), causes
    assert batch.causes("failed") == []
    batch.check_published_once()
    batch.check_epochs()
    batch.check_records()


def test_a_full_store_is_named_and_once_there_is_room_tuning_goes_on(
    cluster: Cluster, make_batch: Callable[[int], Batch]
) -> None:
    cluster.start_tracking()
    cluster.set_nodes(2)
    batch = make_batch(4)

    run = batch.start(*ACTORS)
    batch.wait_for_loss(run)
    cluster.set_quota(1)
    try:
        printed = batch.finish(run)
    finally:
        cluster.set_quota(None)
    assert run.returncode == 1, printed
    failed = {event.task: event for event in batch.events if event.kind == "failed"}
    assert failed
    for task, event in failed.items():
        assert "the store: cannot write s3://" in event.data["cause"]
        assert "QuotaExceeded" in event.data["cause"]
        assert "make room (`ship gc`) or raise the quota" in event.data["cause"]
        assert f"{task}: failed" in printed
        # One attempt and no more, for nothing of another would be kept either.
        assert event.attempt == 1

    run = batch.start(*ACTORS)
    printed = batch.finish(run)
    assert run.returncode == 0, printed
    # One that came to its artifact may have written it, or a part of it.
    cut_off = [task for task, event in failed.items() if "/snapshots/" not in event.data["cause"]]
    batch.check_published_once(num_cut_off=len(cut_off))
    batch.check_epochs(without_snapshot=failed)
    batch.check_records()
