"""LitServe with timm and PEFT, as its documents say.

- "Batching" (lightning.ai/docs/litserve/features/batching): ``max_batch_size`` and ``batch_timeout`` of the
  API; ``predict`` gets what ``batch`` made.
- ``LitServer``'s own description: ``workers_per_device`` is 1 to 4, on a CPU up to the number of its cores;
  ``fast_queue`` beyond 100 requests a second; as many API servers as workers.
- "Speed up serving by 200x": an image comes as base64 in JSON (``image_data``) and is decoded in the worker.
"""

import base64
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from tests.benchmarks.serve.peers.adapters import open_tasks
from tests.benchmarks.serve.peers.knobs import Launch

__all__ = ["ManyTasks"]

_TIMEOUT_S = 60.0


class ManyTasks(litserve.LitAPI):
    """Classifiers of all tasks; a batch is of any tasks."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(max_batch_size=launch.knobs.max_batch, batch_timeout=launch.knobs.wait_s)
        self._launch = launch

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        num_threads = self._launch.knobs.num_threads
        self._model = open_tasks(Path(self._launch.folder), self._launch.tasks, num_threads)
        # Pillow decodes without the interpreter's lock.
        self._pool = ThreadPoolExecutor(num_threads)

    def decode_request(self, request: Mapping[str, str]) -> tuple[str, bytes]:
        """Task and image file."""
        return request["task"], base64.b64decode(request["image_data"])

    def batch(self, inputs: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[np.ndarray]]:
        """Tasks and pixels."""
        tasks, contents = zip(*inputs, strict=True)
        return list(tasks), list(self._pool.map(self._model.pictures.decode, contents))

    def predict(self, batch: tuple[list[str], list[np.ndarray]]) -> list[dict[str, Any]]:
        """An answer to each row."""
        tasks, pixels = batch
        return self._model.answer(pixels, tasks)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers are a list already."""
        return output


def main() -> None:
    """Serve until SIGTERM."""
    launch = Launch.from_env()
    # LitServe itself stops its processes at KeyboardInterrupt only.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = litserve.LitServer(
        ManyTasks(launch),
        accelerator="cpu",
        devices=1,
        workers_per_device=launch.knobs.num_workers,
        timeout=_TIMEOUT_S,
        fast_queue=launch.knobs.fast,
    )
    server.run(host="127.0.0.1", port=launch.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
