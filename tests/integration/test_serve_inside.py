"""Two ingresses with an engine inside each, on a real Ray Serve: one is killed, and no answer is lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.benchmarks.serve.load import open_loop, zipf
from tests.benchmarks.serve.plant import ServePlant, draw_jpeg, open_plant, replica_pids, wait_for_replicas
from tests.benchmarks.serve.rig import promotions

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop; Ray Serve's own pydantic models are written
# in a way that pydantic 2.14 deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

NUM_TASKS = 12
PATIENCE_S = 90.0
PICTURES = [draw_jpeg(seed, (96, 80)) for seed in range(4)]


@pytest.fixture(scope="module")
def plant() -> Iterator[ServePlant]:
    with open_plant("tiny", NUM_TASKS, num_replicas=2, num_ingresses=None) as plant:
        yield plant


def get(plant: ServePlant, path: str) -> httpx.Response:
    return httpx.get(f"{plant.url}{path}", trust_env=False, timeout=PATIENCE_S)


def state(plant: ServePlant) -> tuple[list[int], int]:
    """Served version of each task, and the number of engines that a page of metrics tells of."""
    served = {task["task"]: task["version"] for task in get(plant, "/v1/tasks").json()["tasks"]}
    engines = [line for line in get(plant, "/metrics").text.splitlines() if "ship_engine_precision{" in line]
    return [served[task] for task in plant.tasks], len(engines)


def test_one_of_two_is_killed_amid_promotions(plant: ServePlant):
    running = replica_pids("ServeReplica:ship:Ingress")
    assert (len(running), replica_pids("ServeReplica:ship:Engine")) == (2, [])
    killer = threading.Timer(3.0, os.kill, [running[0], signal.SIGKILL])
    with promotions(plant, num_promotions=20, duration_s=6.0) as promoted:
        killer.start()
        load = open_loop(
            plant.url,
            zipf(plant.tasks[:10], PICTURES),
            rate=10.0,
            duration_s=8.0,
            check=plant.is_whole,
            patience_s=PATIENCE_S,
        )
    killer.join()
    assert len(promoted) == 20
    assert load.num_failed == 0, load.statuses
    assert load.mixed == []
    wait_for_replicas(2, PATIENCE_S, gone=running[0], deployment="Ingress")
    # The one that was killed is told of for a while.
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := state(plant))[0] != [3] * 10 + [1, 1] or found[1] < 2:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.2)
