"""Images that are decoded at a time, limited over all requests; and what one of them may take."""

import asyncio
import base64
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.decode_pool import ProcessPool
from orchestrator.serve.ingress.decoding import Decoder, num_large_at_a_time
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from ship.errors import ImageError
from ship.images import ALLOWED_FORMATS, MAX_PIXELS, decode_image
from ship.images.work import MAX_SCANS
from ship.settings.view import DEFAULT_VIEW, View
from tests.unit.orchestrator.serve.caller import PNG, TO_BOLTS, assert_problem, decode_with
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png
from tests.unit.orchestrator.serve.ingress.hostile_files import jpeg_of_scans, repeated_work

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


@pytest.mark.parametrize(("max_pixels", "num"), [(MAX_PIXELS, 4), (MAX_PIXELS // 2, 8), (10 * MAX_PIXELS, 1)])
def test_it_is_memory_that_says_how_many_large_ones(max_pixels: int, num: int) -> None:
    assert num_large_at_a_time(max_pixels) == num


def test_all_routes_and_requests_share_the_turns(backbone: Backbone, counted: Counted) -> None:
    limits = Limits(decode_processes=3)
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
    assert counted.num_most == 2, "of three, one is left to other accounts"


def test_a_cancelled_request_keeps_its_place_until_its_image_is_decoded(
    backbone: Backbone, counted: Counted
) -> None:
    """A thread goes on when its request is cancelled; what has not begun is left out."""

    async def ask_and_go() -> None:
        decoder = Decoder(backbone.info, Limits(decode_processes=5), counted)
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


async def ask(app: FastAPI, content: bytes, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ship") as client:
        return await client.post("/v1/predict", content=content, headers={**TO_BOLTS, **headers})


def encode(picture: Image.Image, format_: str, **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, **how)
    return file.getvalue()


@pytest.mark.parametrize("format_", ALLOWED_FORMATS)
def test_processes_answer_as_decoding_here_does(backbone: Backbone, format_: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    content, view = encode(picture, format_), View(crop=(6, 8, 36, 48), tiles="1x2")
    info, decoder = backbone.info, Decoder(backbone.info, Limits())
    for wanted in (DEFAULT_VIEW, view):
        expected = decode_image(
            content, size=info.image_size, interpolation=info.interpolation, view=wanted
        ).numpy()
        assert (asyncio.run(decoder.decode(content, wanted)) == expected).all()
    assert asyncio.run(decoder.read_size(content)) == (80, 60)
    assert len(decoder.pool.pids) == decoder.pool.num_idle == 1


def test_processes_know_the_bits_of_a_task(backbone: Backbone) -> None:
    content = encode(Image.fromarray(np.full((8, 8), 1800, dtype=np.uint16)), "PNG")
    decoder = Decoder(backbone.info, Limits())
    seen = asyncio.run(decoder.decode(content, View(bits=12)))
    assert np.unique(seen).tolist() == [112]
    with pytest.raises(ImageError, match="set `bits` in the task's view"):
        asyncio.run(decoder.decode(content))


def test_refusals_are_those_of_decoding_here(backbone: Backbone) -> None:
    decoder = Decoder(backbone.info, Limits(max_pixels=1000))
    for content, kind in (
        (b"<svg/>", "unsupported"),
        (draw_png(size=(30, 30))[:200], "corrupt"),
        (PNG, "too_large"),
    ):
        with pytest.raises(ImageError) as caught:
            asyncio.run(decoder.decode(content))
        assert caught.value.kind == kind


@pytest.mark.parametrize("format_", ALLOWED_FORMATS)
def test_the_kernel_ends_a_decoder_that_has_spent_its_budget(backbone: Backbone, format_: str) -> None:
    """A picture that takes longer than it may, of each format: its structure is that of any other."""
    content = encode(Image.effect_noise((1500, 1500), 90).convert("RGB"), format_, quality=95)
    limits = Limits(decode_cpu_s=0.004, decode_cpu_s_per_megapixel=0.0)
    decoder, honest = Decoder(backbone.info, limits), Decoder(backbone.info, Limits())
    for _ in range(2):
        with pytest.raises(ImageError, match="budget of CPU time") as caught:
            asyncio.run(decoder.decode(content))
        assert caught.value.kind == "too_costly"
    assert decoder.pool.pids == [], "it was ended"
    assert asyncio.run(honest.decode(content)).shape == (3, *backbone.image_size)


@pytest.mark.parametrize("size", [(1500, 1500), (3000, 3000)], ids=["small", "large"])
def test_four_costly_pictures_at_once_leave_an_honest_one_its_answer(
    backbone: Backbone, size: tuple[int, int]
) -> None:
    # Work that no structure tells, in as many scans as are allowed: four times what is granted, anywhere.
    bomb = jpeg_of_scans(MAX_SCANS, size)
    started_s = time.process_time()
    decode_image(bomb, size=backbone.image_size, interpolation=backbone.interpolation)
    granted_s = (time.process_time() - started_s) / 4
    limits = Limits(decode_cpu_s=granted_s, decode_cpu_s_per_megapixel=0.0, decode_processes=3)
    app = make_app(FakeEngine(), backbone.info, limits)
    decoder: Decoder = app.state.front.decoder

    async def ask_all() -> tuple[list[httpx.Response], list[httpx.Response]]:
        bombs = [asyncio.create_task(ask(app, bomb)) for _ in range(4)]
        honest = [await ask(app, PNG, **{"Ship-Timeout": "10"}) for _ in range(3)]
        return await asyncio.gather(*bombs), honest

    refused, answered = asyncio.run(ask_all())
    assert [reply.status_code for reply in answered] == [200] * 3
    assert {assert_problem(reply, 422, "image-too-costly") for reply in refused}
    assert decoder.num_busy == 0
    assert decoder.pool.num_idle == len(decoder.pool.pids), "every process that is left is free"


def test_a_bomb_is_answered_before_it_is_decoded(backbone: Backbone) -> None:
    app = make_app(FakeEngine(), backbone.info)
    for name, content in repeated_work():
        reply = asyncio.run(ask(app, content))
        assert "expected at most" in assert_problem(reply, 422, "image-too-costly"), name
    assert len(app.state.front.decoder.pool.pids) == 1, "the same process goes on"


def test_a_process_that_died_between_two_pictures_is_replaced(backbone: Backbone) -> None:
    decoder = Decoder(backbone.info, Limits())
    asyncio.run(decoder.decode(PNG))
    [first] = decoder.pool.pids
    os.kill(first, signal.SIGKILL)
    while decoder.pool.pids:
        time.sleep(0.001)
    assert asyncio.run(decoder.decode(PNG)).shape == (3, *backbone.image_size)
    [second] = decoder.pool.pids
    assert second != first


def test_a_process_has_no_credentials_of_its_parent(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "marker-7c1")
    decoder = Decoder(backbone.info, Limits())
    asyncio.run(decoder.decode(PNG))
    [pid] = decoder.pool.pids
    assert b"marker-7c1" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_processes_end_with_the_decoder(backbone: Backbone) -> None:
    decoder = Decoder(backbone.info, Limits())
    asyncio.run(decoder.decode(PNG))
    [pid] = decoder.pool.pids
    decoder.pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


_KILLED = """
import asyncio, os, signal, sys
from orchestrator.serve.ingress.decode_pool import DecodeProcess
process = DecodeProcess(1000)
print(process.pid, flush=True)
signal.pause()
"""


def test_a_process_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    while _is_running(pid):
        time.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_decode_process_loads_without_torch() -> None:
    code = (
        "import sys, orchestrator.serve.ingress.decode_process as found; "
        "print(sorted({'torch', 'ray', 'fastapi', 'httpx'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_picture_beyond_the_memory_of_a_process_is_refused() -> None:
    """An address space of its own: what one picture takes is not taken from the ingress."""
    pool = ProcessPool(max_pixels=1000, wall_s=30.0)
    facts = {"size": [30_000, 30_000], "interpolation": "nearest", "formats": ["PNG"], "view": {}}
    budget = {"cpu_s": 30.0, "cpu_s_per_megapixel": 0.0, "largest": None}
    found, _ = asyncio.run(pool.ask({**facts, **budget}, draw_png(size=(30, 30))))
    assert (found["kind"], found["problems"]) == ("too_large", ["too large to decode in memory"])
    pool.close()
