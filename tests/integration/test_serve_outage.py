"""Without store and MLflow for a while: what is in memory is served, what is not says when to come again."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from orchestrator.serve.options import EngineOptions
from orchestrator.store.registry import Registry
from tests.benchmarks.serve_load import open_loop, zipf
from tests.benchmarks.serve_plant import ServePlant, draw_jpeg, open_plant
from tests.benchmarks.serve_services import Services, running_services

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

OUTAGE_S = 15.0
PATIENCE_S = 90.0
PICTURES = [draw_jpeg(seed, (96, 80)) for seed in range(4)]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with running_services(tmp_path_factory.mktemp("services")) as services:
        yield services


@pytest.fixture(scope="module")
def plant(services: Services) -> Iterator[ServePlant]:
    options = EngineOptions(load_wait_s=2.0, retry_s=1.0)
    with open_plant("tiny", 4, options=options, settings=services.settings) as plant:
        yield plant


def eventually(look: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.2)


def state(plant: ServePlant, task: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(
        f"{plant.url}/v1/tasks/{task}", trust_env=False, timeout=PATIENCE_S
    ).json()
    return found


def ask(plant: ServePlant, task: str, version: int | None = None) -> httpx.Response:
    headers = {"Ship-Task": task, "Content-Type": "image/jpeg"}
    if version is not None:
        headers["Ship-Version"] = str(version)
    url = f"{plant.url}/v1/predict"
    return httpx.post(url, content=PICTURES[0], headers=headers, timeout=PATIENCE_S, trust_env=False)


def test_what_is_in_memory_is_served_through_an_outage_and_the_rest_comes_back_by_itself(
    plant: ServePlant, services: Services
):
    registry = Registry(plant.settings.tracking_uri)
    task, promoted = plant.tasks[:2]
    version = plant.add_version(registry, task, seed=900)
    registry.set_challenger(task, version)
    successor = plant.add_version(registry, promoted, seed=901)
    # In the catalog, so that it may be asked for, but in nobody's memory yet.
    eventually(lambda: version in state(plant, task)["others"])

    with services.down(), ThreadPoolExecutor(1) as pool:
        requests = zipf(plant.tasks, PICTURES)
        serving = pool.submit(
            open_loop, plant.url, requests, rate=5.0, duration_s=OUTAGE_S, check=plant.is_whole
        )
        time.sleep(2.0)
        refused = ask(plant, task, version)
        load = serving.result()

    assert set(load.statuses) == {200}, load.refusals
    assert load.mixed == []
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:ship:problem:task-not-loaded")
    assert int(refused.headers["retry-after"]) >= 1
    eventually(lambda: ask(plant, task, version).status_code == 200)
    registry.set_champion(promoted, successor)
    eventually(lambda: ask(plant, promoted).headers["ship-version"] == str(successor))
