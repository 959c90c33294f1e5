"""Companions of a load: the bare runtime, an app that does nothing, promotions, memory."""

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import torch
from ray import serve
from starlette.requests import Request

from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from ship.images import decode_image
from ship.precision import compute_dtype
from ship.runtime.runtime import Runtime
from tests.benchmarks.serve.plant import ServePlant, draw_jpeg, replica_pids, resident_bytes
from tests.benchmarks.synthetic import default_k, make_prompt

__all__ = [
    "Background",
    "BareRuntime",
    "deploy_nothing",
    "make_pictures",
    "memory_bytes",
    "promotions",
    "read_counters",
]

# Engines, ingresses and the poller are deployments of one application.
_PROCESSES = ("ServeReplica:ship:", "ProxyActor")
_NUM_PROMOTED, _NUM_VERSIONS = 10, 4


class BareRuntime:
    """The runtime alone, on the same prompts, at full batches of a mixture of tasks."""

    _NUM_ROWS = 32

    def __init__(self, plant: ServePlant) -> None:
        # As engines compute.
        dtype = compute_dtype("auto", plant.backbone.device)
        self._runtime = Runtime(plant.backbone, dtype=dtype)
        prompts = [
            make_prompt(plant.backbone, seed, default_k(plant.name), 4).requires_grad_(False)
            for seed in range(len(plant.tasks))
        ]
        self._slots = [self._runtime.insert(prompt) for prompt in prompts]
        size, interpolation = plant.backbone.image_size, plant.backbone.interpolation
        images = [
            decode_image(content, size=size, interpolation=interpolation) for content in make_pictures()
        ]
        self._images = torch.stack([images[row % len(images)] for row in range(self._NUM_ROWS)])

    def rate(self, duration_s: float) -> float:
        """Rows a second."""
        slots = [self._slots[row % len(self._slots)] for row in range(self._NUM_ROWS)]
        start_s, num_rows = time.perf_counter(), 0
        while time.perf_counter() - start_s < duration_s:
            num_rows += len(self._runtime.infer(self._images, slots))
        return num_rows / (time.perf_counter() - start_s)


@serve.deployment(name="Nothing", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=256)
class _Nothing:
    async def __call__(self, request: Request) -> str:
        await request.body()
        return "ok"


def deploy_nothing(plant: ServePlant) -> dict[str, str]:
    """Deploy the app beside the endpoint; returns its URLs, to which ``/v1/predict`` may be added.

    They are by the way to it: ``nothing`` is Ray Serve's own proxy, which stands behind HAProxy as well.
    """
    serve.run(_Nothing.bind(), name="nothing", route_prefix="/nothing")
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return {"nothing": f"{plant.url}/nothing"}
    port = os.environ["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]
    return {
        "nothing": f"http://127.0.0.1:{port}/nothing",
        "nothing, by HAProxy": f"{plant.url}/nothing",
    }


class Background:
    """Calls a function again and again in a thread while a block runs, and keeps what it returns."""

    def __init__(self, call: Callable[[], Any], pause_s: float, times: int | None = None) -> None:
        self._call, self._pause_s, self._times = call, pause_s, times
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._found: list[Any] = []
        self._error: Exception | None = None

    def __enter__(self) -> list[Any]:
        self._thread.start()
        return self._found

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        due_s = time.monotonic()
        while len(self._found) != self._times and not self._over.wait(max(0.0, due_s - time.monotonic())):
            due_s += self._pause_s
            try:
                self._found.append(self._call())
            except Exception as error:
                self._error = error
                return


def promotions(plant: ServePlant, num_promotions: int, duration_s: float) -> Background:
    """Promotions in MLflow at regular times, each of a version that is in no engine's memory.

    Each of ten tasks goes round four versions: champion and previous one are in memory, the next one is not.
    """
    registry = Registry(plant.settings.tracking_uri)
    rollouts = Rollouts(registry, plant.store)
    tasks = plant.tasks[:_NUM_PROMOTED]
    versions: dict[str, list[int]] = {task: [1] for task in tasks}
    for number in range(_NUM_VERSIONS - 1):
        for place, task in enumerate(tasks):
            seed = 5000 + number * _NUM_PROMOTED + place
            versions[task].append(plant.add_version(registry, task, seed=seed))
    turns = itertools.cycle(tasks)

    def promote() -> tuple[str, int]:
        task = next(turns)
        versions[task].append(versions[task].pop(0))
        rollouts.promote(task, versions[task][0])
        return task, versions[task][0]

    return Background(promote, duration_s / num_promotions, num_promotions)


def read_counters(plant: ServePlant) -> dict[str, float]:
    """Loads and swaps of all engines."""
    page = httpx.get(f"{plant.url}/metrics", trust_env=False, timeout=30.0).text
    found = dict.fromkeys(("ship_prompt_loads_total", "ship_swaps_total"), 0.0)
    for line in page.splitlines():
        name = line.partition("{")[0]
        if name in found:
            found[name] += float(line.rpartition(" ")[2])
    return found


def memory_bytes() -> int:
    """Resident memory of the endpoint's processes: engines, ingress, poller and proxy."""
    return sum(resident_bytes(replica_pids(part)) for part in _PROCESSES)


def make_pictures(number: int = 8) -> list[bytes]:
    """JPEG files such as a camera makes."""
    return [draw_jpeg(seed) for seed in range(number)]
