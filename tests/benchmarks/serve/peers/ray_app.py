"""Ray Serve with multiplexed models, as its documents say.

- "Model Multiplexing": ``serve.multiplexed`` with room for all tasks, the model's id in the header
  ``serve_multiplexed_model_id``; with batching, Ray Serve splits a batch by model.
- "Dynamic Request Batching": a power of two, and a wait far below the latency aimed at.
- "Performance Tuning": cores reserved for replicas, ``max_ongoing_requests`` above a batch, no blocking of
  the event loop (decoding and the model run in threads), no access log.
- "Enable High Throughput": HAProxy and ``RAY_SERVE_THROUGHPUT_OPTIMIZED``. Multiplexing then belongs on a
  deployment behind the ingress, says the document of multiplexing.
- Beside its documents, the priority of other programs for its workers, as of ours.
"""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.requests import Request

from orchestrator.cluster.variables import SERVING, variables_of_ray
from orchestrator.serve.launch.haproxy import haproxy_ingress
from tests.benchmarks.serve.peers.adapters import MergedTask, MixedTasks, fit_merged
from tests.benchmarks.serve.peers.knobs import Launch

__all__ = ["TaskModels", "make_app"]

_MOST_REQUESTS = 512
_NO_ACCESS_LOG = {"enable_access_log": False}


class TaskModels:
    """Source of the model of each task: merged ones if all fit into memory, else adapters of one backbone."""

    def __init__(self, launch: Launch) -> None:
        self._folder = Path(launch.folder)
        self._shared: MixedTasks | None = None
        if not fit_merged(self._folder, len(launch.tasks)):
            self._shared = MixedTasks(self._folder, launch.tasks)

    def load(self, task: str) -> MergedTask | MixedTasks:
        """The model of a task."""
        return self._shared or MergedTask(self._folder, task)


def make_app(launch: Launch) -> Any:
    """The application: a deployment of multiplexed models, with HAProxy behind an ingress."""
    # Ray Serve reads whether to use HAProxy when it is imported.
    from ray import serve

    knobs = launch.knobs
    options = {
        "num_replicas": knobs.num_workers,
        "ray_actor_options": {"num_cpus": knobs.num_threads},
        "max_ongoing_requests": _MOST_REQUESTS,
        "logging_config": _NO_ACCESS_LOG,
    }

    @serve.deployment(**options)
    class Models:
        def __init__(self) -> None:
            import torch

            torch.set_num_threads(knobs.num_threads)
            self._sources = TaskModels(launch)
            self._threads = ThreadPoolExecutor(knobs.num_threads)
            # One: the hooks that PEFT sets for `adapter_names` are the model's, not the call's.
            self._model_thread = ThreadPoolExecutor(1)

        @serve.multiplexed(max_num_models_per_replica=len(launch.tasks))
        async def get_model(self, model_id: str) -> MergedTask | MixedTasks:
            return await _in(self._threads, self._sources.load, model_id)

        @serve.batch(max_batch_size=knobs.max_batch, batch_wait_timeout_s=knobs.wait_s)
        async def predict(self, contents: list[bytes]) -> list[dict[str, Any]]:
            task = serve.get_multiplexed_model_id()
            model = await self.get_model(task)
            decoding = (_in(self._threads, model.pictures.decode, content) for content in contents)
            pixels = await asyncio.gather(*decoding)
            return await _in(self._model_thread, model.answer, pixels, [task] * len(pixels))

        async def ask(self, content: bytes) -> dict[str, Any]:
            return await self.predict(content)

        async def __call__(self, request: Request) -> dict[str, Any]:
            return await self.predict(await request.body())

    @serve.deployment(
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_MOST_REQUESTS,
        logging_config=_NO_ACCESS_LOG,
    )
    class Ingress:
        def __init__(self, models: Any) -> None:
            self._models = models

        async def __call__(self, request: Request) -> dict[str, Any]:
            model = self._models.options(multiplexed_model_id=request.headers["serve_multiplexed_model_id"])
            answer: dict[str, Any] = await model.ask.remote(await request.body())
            return answer

    return Ingress.bind(Models.bind()) if knobs.fast else Models.bind()


async def _in(threads: ThreadPoolExecutor, call: Any, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


def main() -> None:
    """Serve until SIGTERM."""
    launch = Launch.from_env()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with haproxy_ingress(None, haproxy=launch.knobs.fast), variables_of_ray(SERVING):
        if launch.knobs.fast:
            os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
        _serve(launch)


def _serve(launch: Launch) -> None:
    import ray
    from ray import serve

    cores = launch.knobs.num_workers * launch.knobs.num_threads
    ray.init(num_cpus=max(cores, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": launch.port})
        serve.run(make_app(launch), name="peers")
        while True:
            time.sleep(3600.0)
    except KeyboardInterrupt:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
