"""Compressed request bodies: read as plain ones, within the same limits, or refused by name."""

import asyncio
import gzip
import itertools
import json
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import LIMITS, PNG, TO_BOLTS, Caller, assert_problem
from tests.unit.orchestrator.serve.factory import FakeEngine


def raw_deflate(content: bytes) -> bytes:
    return zlib.compress(content, wbits=-zlib.MAX_WBITS)


def as_is(content: bytes) -> bytes:
    return content


FORMS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("GZip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("identity, gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", as_is),
    ("", as_is),
]


@pytest.fixture
def call(backbone: Backbone) -> Caller:
    return Caller(backbone)


async def in_chunks(content: bytes, size: int = 1) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def predict(call: Caller, content: Any, encoding: str, **headers: str) -> httpx.Response:
    return call.predict(content, **{"Content-Encoding": encoding, **headers})


@pytest.mark.parametrize(("encoding", "compress"), FORMS)
def test_a_compressed_body_is_answered_as_the_plain_one(
    call: Caller, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    plain = call.predict().json()
    body = compress(PNG)
    for content in (body, in_chunks(body), in_chunks(body, 7)):
        reply = predict(call, content, encoding)
        assert (reply.status_code, reply.json()) == (200, plain)


@pytest.mark.parametrize(("encoding", "compress"), FORMS)
def test_other_routes_read_them_too(call: Caller, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64encode(PNG).decode()]}
    form = httpx.Request("POST", "http://ship", files={"image": ("cap.png", PNG)})
    for path, content, headers in (
        ("/v2/models/bolts/infer", json.dumps({"inputs": [tensor]}).encode(), {}),
        ("/v1/predict", form.read(), {**TO_BOLTS, "Content-Type": form.headers["content-type"]}),
        (
            "/v1/predict:batch",
            form.read(),
            {"Ship-Task": "bolts", "Content-Type": form.headers["content-type"]},
        ),
        ("/v1/explain", PNG, {**TO_BOLTS, "Accept": "application/json"}),
    ):
        headers = {**headers, "Content-Encoding": encoding}
        reply = call("POST", path, content=compress(content), headers=headers)
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "compress", "gzip, gzip", "deflate, gzip", "gzip;q=1", "x"]
)
def test_another_encoding_is_refused_with_those_there_are(call: Caller, encoding: str) -> None:
    reply = predict(call, PNG, encoding)
    detail = assert_problem(reply, 415, "content-encoding-unsupported")
    assert encoding in detail
    assert reply.headers["accept-encoding"] == "gzip, deflate, identity"
    assert call("POST", "/healthz", headers={"Content-Encoding": encoding}).status_code == 405


def test_two_headers_are_two_encodings(call: Caller) -> None:
    named = [*TO_BOLTS.items(), ("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]
    reply = call("POST", "/v1/predict", content=gzip.compress(gzip.compress(PNG)), headers=named)
    assert_problem(reply, 415, "content-encoding-unsupported")


@pytest.mark.parametrize(
    ("encoding", "content", "found"),
    [
        ("gzip", PNG, "of another format"),
        ("gzip", zlib.compress(PNG), "of another format"),
        ("deflate", gzip.compress(PNG), "of another format"),
        ("gzip", gzip.compress(PNG)[:-1], "ends before"),
        ("gzip", gzip.compress(PNG)[:1], "ends before"),
        ("deflate", zlib.compress(PNG)[:40], "ends before"),
        ("deflate", raw_deflate(PNG)[:-1], "ends before"),
        ("gzip", gzip.compress(PNG) + b"x", "after the end"),
        ("gzip", gzip.compress(PNG)[:-8] + bytes(8), "damaged"),
        ("deflate", zlib.compress(PNG)[:-4] + bytes(4), "damaged"),
    ],
)
def test_damaged_data_are_refused_by_name(call: Caller, encoding: str, content: bytes, found: str) -> None:
    for body in (content, in_chunks(content)):
        detail = assert_problem(predict(call, body, encoding), 400, "body-corrupt")
        assert found in detail
    assert not call.engine.asked


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["plain", "gzip"])
def test_an_empty_body_is_empty(call: Caller, content: bytes) -> None:
    assert_problem(predict(call, content, "gzip"), 400, "body-empty")


@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_on_what_comes_out(call: Caller, more: int) -> None:
    """Not on what is sent, which may be more; zeros after a picture damage it."""
    content = PNG + bytes(LIMITS.max_body_bytes - len(PNG) + more)
    stored = zlib.compress(content, level=0)
    assert len(stored) > LIMITS.max_body_bytes
    for body, encoding in ((stored, "deflate"), (gzip.compress(content), "gzip")):
        reply = predict(call, body, encoding)
        assert reply.status_code == (413 if more else 422), reply.text


def bomb() -> bytes:
    """A gigabyte of zeros in one of a megabyte."""
    squeezer = zlib.compressobj(wbits=31)
    zeros = bytes(1 << 20)
    return b"".join([*(squeezer.compress(zeros) for _ in range(1 << 10)), squeezer.flush()])


def test_a_bomb_is_stopped_at_the_limit_without_its_memory(call: Caller) -> None:
    content = bomb()
    tracemalloc.start()
    try:
        reply = predict(call, content, "gzip")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_problem(reply, 413, "body-too-large")
    assert peak < 8 * len(content)


def test_bytes_inside_are_those_that_come_out(backbone: Backbone) -> None:
    """Two bodies that decompress to more than there is room for are not both read."""
    app = make_app(FakeEngine(), backbone.info, Limits(max_inside_bytes=1 << 20))
    is_going_on = asyncio.Event()
    squeezer = zlib.compressobj()
    first = squeezer.compress(bytes(3 << 18)) + squeezer.flush(zlib.Z_SYNC_FLUSH)

    async def held() -> AsyncIterator[bytes]:
        yield first
        await is_going_on.wait()

    async def ask(content: Any) -> httpx.Response:
        headers = {**TO_BOLTS, "Content-Encoding": "deflate"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ship") as client:
            return await client.post("/v1/predict", content=content, headers=headers)

    async def both() -> httpx.Response:
        task = asyncio.create_task(ask(held()))
        admission = app.state.front.admission
        for _ in range(10_000):
            if admission.num_bytes == 3 << 18:
                break
            await asyncio.sleep(0)
        assert admission.num_bytes == 3 << 18
        reply = await ask(zlib.compress(bytes(3 << 18)))
        is_going_on.set()
        await task
        assert admission.num_bytes == 0
        return reply

    assert_problem(asyncio.run(both()), 429, "busy")


def test_other_requests_have_their_turns_while_a_body_grows(backbone: Backbone) -> None:
    call = Caller(backbone, Limits(max_body_bytes=4 << 20))
    turns = itertools.count()

    async def tick(done: asyncio.Event) -> None:
        while not done.is_set():
            next(turns)
            await asyncio.sleep(0)

    async def ask() -> None:
        done = asyncio.Event()
        ticking = asyncio.create_task(tick(done))
        headers = {**TO_BOLTS, "Content-Encoding": "gzip"}
        transport = httpx.ASGITransport(call.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            reply = await client.post("/v1/predict", content=gzip.compress(bytes(8 << 20)), headers=headers)
        assert reply.status_code == 413
        done.set()
        await ticking

    asyncio.run(ask())
    assert next(turns) >= (4 << 20) // (64 << 10)
