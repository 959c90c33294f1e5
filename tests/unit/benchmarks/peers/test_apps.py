"""The servers' own code answers right, in this process and without a network."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from tests.benchmarks.serve.load import Request
from tests.benchmarks.serve.peers.fastapi_app import Batcher, make_app
from tests.benchmarks.serve.peers.knobs import Launch
from tests.benchmarks.serve.peers.ray_app import TaskModels
from tests.benchmarks.serve.peers.scene import Scene
from tests.benchmarks.serve.peers.systems import find_systems

PIXELS = np.zeros((1, 1, 3), dtype=np.uint8)


def requests_of(scene: Scene, name: str) -> list[Request]:
    (system,), missing = find_systems(scene, [name])
    assert not missing
    return list(system.requests.values())


def test_fastapi_answers_requests_that_come_together(scene: Scene, launch: Launch) -> None:
    async def ask() -> list[httpx.Response]:
        app = make_app(launch)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as client,
        ):
            unknown = await client.post("/predict", content=b"", headers={"Ship-Task": "nothing"})
            assert unknown.status_code == 404
            return await asyncio.gather(
                *(
                    client.post(each.path, content=each.content, headers={each.task_header: each.task})
                    for each in requests
                )
            )

    requests = requests_of(scene, "fastapi")
    for request, reply in zip(requests, asyncio.run(ask()), strict=True):
        assert reply.status_code == 200
        assert request.check is not None
        assert request.check(reply.json(), {})


def test_litserve_answers_a_batch(scene: Scene, launch: Launch) -> None:
    pytest.importorskip("litserve")
    from tests.benchmarks.serve.peers.litserve_app import ManyTasks

    api, requests = ManyTasks(launch), requests_of(scene, "litserve")
    assert (api.max_batch_size, api.batch_timeout) == (4, 0.001)
    api.setup("cpu")
    inputs = [api.decode_request(json.loads(request.content)) for request in requests]
    replies = api.unbatch(api.predict(api.batch(inputs)))
    assert len(replies) == len(requests)
    for request, reply in zip(requests, replies, strict=True):
        assert request.check is not None
        assert request.check(reply, {})


def test_each_model_that_is_multiplexed_answers_for_its_task(scene: Scene, launch: Launch) -> None:
    models = TaskModels(launch)
    for request in requests_of(scene, "ray"):
        assert request.task is not None
        model = models.load(request.task)
        (reply,) = model.answer([model.pictures.decode(request.content)], [request.task])
        assert request.check is not None
        assert request.check(reply, {})


def batcher_of(sizes: list[int], max_batch: int, wait_s: float = 0.0) -> Batcher:
    def answer(rows: Sequence[tuple[np.ndarray, str]]) -> list[dict[str, Any]]:
        sizes.append(len(rows))
        if any(name == "bad" for _, name in rows):
            raise ValueError("bad row")
        return [{"task": name} for _, name in rows]

    return Batcher(answer, max_batch, wait_s)


def test_a_batch_takes_all_rows_that_wait_up_to_its_size_and_no_row_is_lost() -> None:
    sizes: list[int] = []

    async def ask() -> list[dict[str, Any]]:
        batcher = batcher_of(sizes, max_batch=4)
        asking = [asyncio.create_task(batcher.ask((PIXELS, str(number)))) for number in range(10)]
        # All rows are in the queue before the first batch is collected.
        await asyncio.sleep(0)
        running = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*asking)
        running.cancel()
        return found

    assert [reply["task"] for reply in asyncio.run(ask())] == [str(number) for number in range(10)]
    assert sizes == [4, 4, 2]


def test_a_batch_that_fails_fails_its_rows_only() -> None:
    sizes: list[int] = []

    async def ask() -> None:
        batcher = batcher_of(sizes, max_batch=1)
        running = asyncio.create_task(batcher.run())
        with pytest.raises(ValueError, match="bad row"):
            await batcher.ask((PIXELS, "bad"))
        assert await batcher.ask((PIXELS, "good")) == {"task": "good"}
        running.cancel()

    asyncio.run(ask())
