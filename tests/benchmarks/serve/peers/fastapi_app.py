"""Plain FastAPI with timm and PEFT: a queue in asyncio, and a task that takes batches from it.

As people write it: FastAPI's documents ("Concurrency and async / await"; "Server Workers": several processes
of uvicorn) and the usual tutorials of dynamic batching ("Batch accumulation with asyncio Queue"): a handler
decodes in Starlette's thread pool (``run_in_threadpool``), puts its row into the queue and awaits a future;
the batch task runs the model in an executor, so that the event loop goes on.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from tests.benchmarks.serve.peers.adapters import open_tasks
from tests.benchmarks.serve.peers.knobs import Launch

__all__ = ["Batcher", "create", "make_app"]

Row = tuple[np.ndarray, str]


class Batcher:
    """A queue of rows, answered in batches by a function that runs in a thread."""

    def __init__(
        self, answer: Callable[[Sequence[Row]], list[dict[str, Any]]], max_batch: int, wait_s: float
    ) -> None:
        self._answer, self._max_batch, self._wait_s = answer, max_batch, wait_s
        self._queue: asyncio.Queue[tuple[Row, asyncio.Future[dict[str, Any]]]] = asyncio.Queue()
        # One thread: the hooks that PEFT sets for `adapter_names` are the model's, not the call's.
        self._thread = ThreadPoolExecutor(1)

    async def ask(self, row: Row) -> dict[str, Any]:
        """The answer to a row."""
        future = asyncio.get_running_loop().create_future()
        await self._queue.put((row, future))
        answer: dict[str, Any] = await future
        return answer

    async def run(self) -> None:
        """Answer batch after batch, for ever."""
        while True:
            await self._answer_batch(await self._collect())

    async def _collect(self) -> list[tuple[Row, asyncio.Future[dict[str, Any]]]]:
        batch = [await self._queue.get()]
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._wait_s
        while len(batch) < self._max_batch:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            try:
                batch.append(await asyncio.wait_for(self._queue.get(), due_s - loop.time()))
            except TimeoutError:
                break
        return batch

    async def _answer_batch(self, batch: list[tuple[Row, asyncio.Future[dict[str, Any]]]]) -> None:
        loop, rows = asyncio.get_running_loop(), [row for row, _ in batch]
        try:
            answers = await loop.run_in_executor(self._thread, self._answer, rows)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            # A client that has gone has cancelled its own.
            if not future.done():
                future.set_result(answer)


def make_app(launch: Launch) -> FastAPI:
    """The app; the model is loaded when it starts."""
    tasks, knobs = frozenset(launch.tasks), launch.knobs

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        model = open_tasks(Path(launch.folder), launch.tasks, knobs.num_threads)

        def answer(rows: Sequence[Row]) -> list[dict[str, Any]]:
            pixels, names = zip(*rows, strict=True)
            return model.answer(pixels, names)

        app.state.decode = model.pictures.decode
        app.state.batcher = Batcher(answer, knobs.max_batch, knobs.wait_s)
        running = asyncio.create_task(app.state.batcher.run())
        yield
        running.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(request: Request, ship_task: Annotated[str, Header()]) -> JSONResponse:
        if ship_task not in tasks:
            raise HTTPException(404, f"no task {ship_task!r}")
        pixels = await run_in_threadpool(app.state.decode, await request.body())
        return JSONResponse(await app.state.batcher.ask((pixels, ship_task)))

    return app


def create() -> FastAPI:
    """The app of a worker process, for uvicorn."""
    return make_app(Launch.from_env())


def main() -> None:
    """Serve until SIGTERM."""
    import uvicorn

    launch = Launch.from_env()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvicorn.run(
        "tests.benchmarks.serve.peers.fastapi_app:create",
        factory=True,
        host="127.0.0.1",
        port=launch.port,
        workers=launch.knobs.num_workers,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
