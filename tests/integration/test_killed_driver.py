"""A cluster that others use is free again when a run's driver was killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.util import list_named_actors

from orchestrator.cluster.session import ray_session
from orchestrator.settings import EXECUTORS, Executor
from orchestrator.train.ledger.actor import ACTOR_NAME
from tests.integration.plant import PATIENCE_S, descendants
from tests.integration.waiting_run import BEGUN, WAITS, run

# Ray Train imports Ray Data, which warns of its own settings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray that this process started and has joined."""
    # Workers import the runner.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[__name__.count(".")]), prepend=os.pathsep)
    with ray_session(None, object_store_bytes=1 << 28):
        yield ray.get_runtime_context().gcs_address


def wait_until(done: Callable[[], bool], driver: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s
        assert driver.returncode is not None or driver.poll() is None, "the driver ended by itself"
        time.sleep(0.1)


def reserve(cpus: int) -> float:
    """CPUs that the cluster's coordinator grants at once, of so many."""
    # Imported late, for what it imports warns.
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        ResourceRequestPriority,
        get_or_create_autoscaling_coordinator,
    )

    coordinator = get_or_create_autoscaling_coordinator()
    ray.get(
        coordinator.request_resources.remote(
            requester_id="the-next",
            resources=[{"CPU": 1.0}] * cpus,
            expire_after_s=PATIENCE_S,
            priority=ResourceRequestPriority.HIGH,
        )
    )
    granted = ray.get(coordinator.get_reserved_resources.remote("the-next"))
    ray.get(coordinator.cancel_request.remote("the-next"))
    return sum(resources["CPU"] for resources in granted.values())


def pool_processes() -> list[str]:
    """Processes of runs on this cluster, other than idle ones."""
    marks = ("ray::LedgerActor", "ray::_Seat", "ray::RayTrainWorker", "ray::TrainController")
    return [title for _, title in descendants(os.getpid()) if title.startswith(marks)]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_killed_driver_leaves_neither_processes_nor_reservations(
    address: str, tmp_path: Path, executor: Executor
) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    command = [sys.executable, "-m", run.__module__, str(tmp_path), executor]
    with subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": address}) as driver:
        try:
            wait_until((tmp_path / BEGUN).exists, driver)
            assert reserve(cpus) == (0.0 if executor == "train" else cpus)
            assert len(pool_processes()) == (3 if executor == "train" else 2)
        finally:
            driver.kill()

    wait_until(lambda: not any(actor["name"] == ACTOR_NAME for actor in list_named_actors(True)), driver)

    assert reserve(cpus) == cpus
    wait_until(lambda: not pool_processes(), driver)
    assert run(tmp_path, executor, f"not-{WAITS}").done == (f"not-{WAITS}",)
