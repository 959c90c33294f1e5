"""Number of images that are decoded at a time: limited over all requests, cancelled ones included."""

import asyncio
import base64
import threading
import time
from typing import Any

import httpx
import pytest

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.decoding import Decoder, num_at_a_time
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from ship.images import MAX_PIXELS, decode_image
from tests.unit.orchestrator.serve.caller import TO_BOLTS, decode_with
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png

# One more image decoded beside them would have time enough to show itself.
_LINGER_S = 0.02


class Counted:
    """Decodes, and counts how many do at once; holds them for as long as it is told to."""

    def __init__(self) -> None:
        self.num_now = self.num_most = self.num_all = 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, content: bytes, **how: Any) -> Any:
        with self._lock:
            self.num_all += 1
            self.num_now += 1
            self.num_most = max(self.num_most, self.num_now)
        try:
            self.go_on.wait(30)
            time.sleep(_LINGER_S)
            return decode_image(content, **how)
        finally:
            with self._lock:
                self.num_now -= 1


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.mark.parametrize(
    ("max_pixels", "num"), [(MAX_PIXELS, 4), (MAX_PIXELS // 2, 8), (1000, 32), (10 * MAX_PIXELS, 1)]
)
def test_it_is_memory_that_says_how_many(max_pixels: int, num: int) -> None:
    assert num_at_a_time(max_pixels) == num


def test_all_routes_and_requests_share_the_turns(backbone: Backbone, counted: Counted) -> None:
    limits = Limits(max_pixels=2 * MAX_PIXELS)
    app, pngs = make_app(FakeEngine(), backbone.info, limits), [draw_png(number) for number in range(6)]
    decode_with(app, Decoder(backbone.info, limits, counted))
    texts = [base64.b64encode(png).decode() for png in pngs[:2]]
    tensor = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": texts}]}
    counted.go_on.set()

    async def ask_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            batch = {
                "files": {f"i{number}": png for number, png in enumerate(pngs)},
                "headers": {"Ship-Task": "bolts"},
            }
            return await asyncio.gather(
                *(client.post("/v1/predict:batch", **batch) for _ in range(2)),
                *(client.post("/v1/predict", content=png, headers=TO_BOLTS) for png in pngs),
                client.post("/v1/explain", content=pngs[0], headers=TO_BOLTS),
                client.post("/v2/models/bolts/infer", json=tensor),
            )

    assert [reply.status_code for reply in asyncio.run(ask_all())] == [200] * 10
    assert counted.num_all == 2 * 6 + 6 + 1 + 2
    assert counted.num_most == num_at_a_time(limits.max_pixels) == 2


def test_a_cancelled_request_keeps_its_place_until_its_image_is_decoded(
    backbone: Backbone, counted: Counted
) -> None:
    """A thread goes on when its request is cancelled; what has not begun is left out."""

    async def ask_and_go() -> None:
        decoder = Decoder(backbone.info, Limits(), counted)
        asked = [asyncio.ensure_future(decoder.decode(draw_png())) for _ in range(10)]
        while counted.num_now < 4:
            await asyncio.sleep(0.001)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert counted.num_now == 4, "they are under way"
        last = asyncio.ensure_future(decoder.decode(draw_png()))
        await asyncio.sleep(_LINGER_S)
        assert counted.num_all == 4
        counted.go_on.set()
        assert (await last).shape == (3, *backbone.image_size)

    asyncio.run(ask_and_go())
    assert (counted.num_all, counted.num_most) == (5, 4)
