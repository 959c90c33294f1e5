"""Two engines under load on a real Ray Serve: swapped, killed and flooded, without a lost or mixed answer.

What it takes in time is measured by ``python -m tests.benchmarks serve``; here are facts.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from orchestrator.serve.options import EngineOptions, Limits
from tests.benchmarks.serve.load import Request, closed_loop, open_loop, zipf
from tests.benchmarks.serve.plant import ServePlant, draw_jpeg, open_plant, replica_pids, wait_for_replicas
from tests.benchmarks.serve.rig import promotions, read_counters

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop; Ray Serve's own pydantic models are written
# in a way that pydantic 2.14 deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

NUM_TASKS, NUM_ENGINES = 12, 2
# Slow enough for a machine on which other things run.
CALM = 10.0
PATIENCE_S = 60.0
PICTURES = [draw_jpeg(seed, (96, 80)) for seed in range(4)]


@pytest.fixture(scope="module")
def plant() -> Iterator[ServePlant]:
    options = EngineOptions(max_waiting=12, max_batch_rows=4)
    limits = Limits(max_inside=24)
    with open_plant("tiny", NUM_TASKS, num_replicas=NUM_ENGINES, options=options, limits=limits) as plant:
        yield plant


def versions(plant: ServePlant) -> list[int]:
    """Served version of each task."""
    listed = httpx.get(f"{plant.url}/v1/tasks", trust_env=False, timeout=PATIENCE_S).json()["tasks"]
    found = {task["task"]: task["version"] for task in listed}
    return [found[task] for task in plant.tasks]


def flood(task: str) -> Iterator[Request]:
    while True:
        yield Request(task=task, content=PICTURES[0])


def test_promotions_under_load_lose_no_request_and_mix_no_answer(plant: ServePlant):
    promoting = promotions(plant, num_promotions=30, duration_s=10.0)
    before = read_counters(plant)
    with promoting as promoted:
        load = open_loop(
            plant.url, zipf(plant.tasks[:10], PICTURES), rate=CALM, duration_s=14.0, check=plant.is_whole
        )
    assert len(promoted) == 30
    assert load.num_failed == 0, load.statuses
    assert load.mixed == []
    # Thirty promotions of ten tasks end with the fourth version of each task.
    expected = [4] * 10 + [1] * (NUM_TASKS - 10)
    deadline_s = time.monotonic() + PATIENCE_S
    while (served := versions(plant)) != expected:
        assert time.monotonic() < deadline_s, served
        time.sleep(0.2)
    # Each was fetched, checked and inserted, on the engine that was asked if not on both. One that the next
    # promotion of its task overtook between two looks need not have been.
    assert read_counters(plant)["ship_prompt_loads_total"] - before["ship_prompt_loads_total"] >= 10


def test_a_flood_is_turned_away_and_starves_no_other_task(plant: ServePlant):
    flooded = {}

    def send_flood() -> None:
        requests = flood(plant.tasks[0])
        flooded["load"] = closed_loop(plant.url, requests, num_clients=80, duration_s=8.0)

    sender = threading.Thread(target=send_flood)
    sender.start()
    others = open_loop(plant.url, zipf(plant.tasks[1:], PICTURES), rate=3.0, duration_s=6.0)
    sender.join()
    assert flooded["load"].statuses[429] > 0
    assert set(flooded["load"].statuses) == {200, 429}, flooded["load"].refusals
    assert set(others.statuses) == {200}


def test_a_refused_client_is_told_when_to_retry(plant: ServePlant):
    refused: list[httpx.Response] = []

    def ask() -> None:
        headers = {"Ship-Task": plant.tasks[0], "Content-Type": "image/jpeg"}
        with httpx.Client(base_url=plant.url, trust_env=False, timeout=PATIENCE_S) as client:
            while not refused:
                reply = client.post("/v1/predict", content=PICTURES[0], headers=headers)
                if reply.status_code != 200:
                    refused.append(reply)

    askers = [threading.Thread(target=ask) for _ in range(40)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    reply = refused[0]
    assert (reply.status_code, reply.json()["type"]) == (429, "urn:ship:problem:busy")
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("part", ["Engine", "Ingress"])
def test_what_is_killed_under_load_costs_a_patient_client_no_request_and_comes_back(
    plant: ServePlant, part: str
):
    running = replica_pids(f"ServeReplica:ship:{part}")
    killer = threading.Timer(3.0, os.kill, [running[0], signal.SIGKILL])
    killer.start()
    load = open_loop(
        plant.url,
        zipf(plant.tasks, PICTURES),
        rate=CALM,
        duration_s=8.0,
        check=plant.is_whole,
        patience_s=PATIENCE_S,
    )
    killer.join()
    assert load.num_failed == 0, load.statuses
    assert load.mixed == []
    wait_for_replicas(len(running), PATIENCE_S, gone=running[0], deployment=part)
    after = open_loop(plant.url, zipf(plant.tasks, PICTURES), rate=CALM, duration_s=2.0)
    assert set(after.statuses) == {200}
