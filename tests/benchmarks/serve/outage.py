"""An outage of store and MLflow: requests for resident and for other versions, and the recovery."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import CHALLENGER
from orchestrator.serve.options import EngineOptions
from tests.benchmarks.serve.load import Load, open_loop, zipf
from tests.benchmarks.serve.plant import ServePlant, open_plant
from tests.benchmarks.serve.rig import make_pictures
from tests.benchmarks.serve.services import Services, running_services

__all__ = ["live_through_outage"]

# Between two requests for a version that is not in memory.
_EVERY_S = 5.0
_PATIENCE_S = 120.0


def live_through_outage(
    backbone: str,
    num_tasks: int,
    find_rate: Callable[[ServePlant], float],
    duration_s: float,
    options: EngineOptions | None = None,
) -> tuple[float, Load, dict[str, Any]]:
    """Freeze S3 and MLflow under an open loop on what is in memory.

    Args:
        backbone: Backbone of the endpoint.
        num_tasks: Tasks that are served, at least two.
        find_rate: Chooses the requests a second for a warm endpoint.
        duration_s: Seconds of the outage.
        options: Options of the engines.

    Returns:
        The rate, the load, and facts about a version that was not in memory.

    Raises:
        TimeoutError: That version, or a promotion, is not served afterwards.
    """
    with (
        TemporaryDirectory(prefix="ship-outage-") as folder,
        running_services(Path(folder)) as services,
        open_plant(backbone, num_tasks, options=options, settings=services.settings) as plant,
        ThreadPoolExecutor(1) as pool,
    ):
        rate = find_rate(plant)
        load, facts = _freeze(plant, services, pool, rate, duration_s)
    return rate, load, facts


def _freeze(
    plant: ServePlant, services: Services, pool: Executor, rate: float, duration_s: float
) -> tuple[Load, dict[str, Any]]:
    registry = Registry(plant.settings.tracking_uri)
    task, promoted = plant.tasks[:2]
    version = plant.add_version(registry, task, seed=900)
    registry.set_alias(task, CHALLENGER, version)
    successor = plant.add_version(registry, promoted, seed=901)
    _seconds_until(lambda: version in _state(plant, task)["others"])
    with services.down():
        serving = pool.submit(_ask_open, plant, rate, duration_s)
        refusals = _ask_meanwhile(plant, task, version, serving)
        load = serving.result()
    back_s = _seconds_until(lambda: _ask(plant, task, version).status_code == 200)
    Rollouts(registry, plant.store).promote(promoted, successor)
    promoted_s = _seconds_until(lambda: _ask(plant, promoted).headers["Ship-Version"] == str(successor))
    facts = {
        "asked meanwhile for what is not in memory": refusals,
        "seconds until that is served, afterwards": round(back_s, 1),
        "seconds until a promotion arrives, afterwards": round(promoted_s, 1),
    }
    return load, facts


def _ask_open(plant: ServePlant, rate: float, duration_s: float) -> Load:
    requests = zipf(plant.tasks, make_pictures())
    return open_loop(plant.url, requests, rate=rate, duration_s=duration_s, check=plant.is_whole)


def _ask_meanwhile(plant: ServePlant, task: str, version: int, serving: Future[Load]) -> dict[str, int]:
    found: Counter[str] = Counter()
    while not serving.done():
        reply = _ask(plant, task, version)
        kind = "" if reply.status_code == 200 else reply.json()["type"].rpartition(":")[2]
        found[f"{reply.status_code} {kind}, Retry-After {reply.headers.get('Retry-After')}"] += 1
        time.sleep(_EVERY_S)
    return dict(found)


def _ask(plant: ServePlant, task: str, version: int | None = None) -> httpx.Response:
    headers = {"Ship-Task": task, "Content-Type": "image/jpeg"}
    if version is not None:
        headers["Ship-Version"] = str(version)
    return httpx.post(
        f"{plant.url}/v1/predict",
        content=make_pictures(1)[0],
        headers=headers,
        timeout=_PATIENCE_S,
        trust_env=False,
    )


def _state(plant: ServePlant, task: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(
        f"{plant.url}/v1/tasks/{task}", trust_env=False, timeout=_PATIENCE_S
    ).json()
    return found


def _seconds_until(look: Callable[[], bool]) -> float:
    start_s = time.monotonic()
    while not look():
        if time.monotonic() - start_s > _PATIENCE_S:
            raise TimeoutError(f"the endpoint did not recover within {_PATIENCE_S:g} s")
        time.sleep(0.2)
    return time.monotonic() - start_s
