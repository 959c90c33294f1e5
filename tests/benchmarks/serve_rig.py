"""What stands beside the load: the bare runtime, an app that does nothing, promotions, memory."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from ray import serve
from starlette.requests import Request

from orchestrator.store.registry import Registry
from ship.images import decode_image
from ship.runtime import Runtime
from tests.benchmarks.serve_plant import ServePlant, draw_jpeg, replica_pids, resident_bytes
from tests.benchmarks.synthetic import default_k, make_prompt

__all__ = ["Background", "BareRuntime", "deploy_nothing", "make_pictures", "memory_bytes", "promotions"]

_PROCESSES = ("ServeReplica:ship:Engine", "ServeReplica:ship:Ingress", "ProxyActor")


class BareRuntime:
    """The runtime alone, on the same prompts, at full batches of a mixture of tasks."""

    _NUM_ROWS = 32

    def __init__(self, plant: ServePlant) -> None:
        self._runtime = Runtime(plant.backbone)
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


def deploy_nothing(plant: ServePlant) -> str:
    """Beside the endpoint, on the same proxy; its URL, to which ``/v1/predict`` may be added."""
    serve.run(_Nothing.bind(), name="nothing", route_prefix="/nothing")
    return f"{plant.url}/nothing"


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
    """Promotions in MLflow at regular times: each task goes back and forth between two versions."""
    registry = Registry(plant.settings.tracking_uri)
    tasks = plant.tasks[: min(len(plant.tasks), 10)]
    second = {
        task: plant.add_version(registry, task, seed=5000 + number) for number, task in enumerate(tasks)
    }
    turns = itertools.cycle([(task, version) for version in (second, None) for task in tasks])

    def promote() -> tuple[str, int]:
        task, versions = next(turns)
        version = versions[task] if versions else 1
        registry.set_champion(task, version)
        return task, version

    return Background(promote, duration_s / num_promotions, num_promotions)


def memory_bytes() -> int:
    """Of the endpoint's processes: engines, ingress and proxy."""
    return sum(resident_bytes(replica_pids(part)) for part in _PROCESSES)


def make_pictures() -> list[bytes]:
    """Files such as a camera makes."""
    return [draw_jpeg(seed) for seed in range(8)]
