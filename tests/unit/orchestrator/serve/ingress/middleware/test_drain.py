"""An ingress that closes finishes what is inside and turns away what comes."""

import asyncio

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from orchestrator.serve.ingress.middleware.drain import Drain, DrainGate


class Slow:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


@pytest.mark.parametrize("finishes", [True, False])
def test_what_is_inside_finishes_and_what_comes_is_turned_away(finishes: bool):
    async def close_with_one_inside() -> tuple[bool, httpx.Response, httpx.Response]:
        drain, app = Drain(), Slow()
        transport = httpx.ASGITransport(DrainGate(app, drain))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            inside = asyncio.create_task(client.get("/"))
            while not drain.num_inside:
                await asyncio.sleep(0)
            closing = asyncio.create_task(drain.close(60.0 if finishes else 0.01))
            while not drain.is_closing:
                await asyncio.sleep(0)
            late = await client.get("/")
            if finishes:
                app.go.set()
            is_empty = await closing
            app.go.set()
            return is_empty, await inside, late

    is_empty, inside, late = asyncio.run(close_with_one_inside())
    assert is_empty == finishes
    assert (inside.status_code, inside.text) == (200, "done")
    assert late.status_code == 503
    assert late.headers["content-type"] == "application/problem+json"
    assert int(late.headers["retry-after"]) >= 1
