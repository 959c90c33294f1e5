"""Hostile requests: refused with a problem, without a disk, a traceback or an end of the endpoint.

Requests go to the ASGI interface as they are: a client library would mend some of them.
"""

import asyncio
import json
import re
import sys
from typing import Any

import pytest

from orchestrator.serve.options import Limits
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.caller import Caller
from tests.unit.orchestrator.serve.ingress.hostile_documents import documents, forms
from tests.unit.orchestrator.serve.ingress.hostile_files import bombs, encode
from tests.unit.orchestrator.serve.ingress.hostile_request import TO_BOLTS, Hostile
from tests.unit.orchestrator.serve.ingress.hostile_requests import bodies, headers, images, names, routes

LIMITS = Limits(
    max_body_bytes=400_000,
    max_pixels=1_000_000,
    max_batch_items=8,
    max_batch_images=4,
    max_batch_bytes=1_000_000,
)
# Words that only a traceback, a path or an address in memory would bring into a reply.
_TELLTALE = re.compile(
    r'Traceback|File "|/work|/home|/tmp|/etc|/usr|site-packages|\.py\b|0x[0-9a-f]{6,}|s3cr3t'
)


ALL = [
    *images(),
    *names(),
    *headers(),
    *bodies(),
    *forms(),
    *documents(),
    *routes(),
]


async def send(app: Any, hostile: Hostile) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the reply."""
    chunks, sent = list(hostile.chunks), []
    path = hostile.path
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": hostile.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1", "replace"),
        "query_string": b"token=s3cr3t",
        "root_path": "",
        "headers": [*hostile.headers, (b"host", b"ship")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        if not chunks:
            return {"type": "http.disconnect"}
        body = chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(chunks) or hostile.hangs_up}

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, keep)
    start, *rest = sent
    return start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in rest)


class Watch:
    """Which files this process opens for writing, or makes, while it looks."""

    def __init__(self) -> None:
        self.is_on = False
        self.found: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        made = event in (
            "os.mkdir",
            "os.rename",
            "os.link",
            "os.symlink",
            "tempfile.mkstemp",
            "tempfile.mkdtemp",
        )
        if (
            writes
            or made
            or event in ("subprocess.Popen", "os.system", "pickle.find_class", "socket.connect")
        ):
            self.found.append(f"{event} {args[:2]!r}"[:200])


WATCH = Watch()


@pytest.fixture(scope="module", autouse=True)
def _watching() -> None:
    # A hook can't be taken away again: it is one that does nothing most of the time.
    sys.addaudithook(WATCH)


@pytest.fixture(scope="module")
def call(backbone: Backbone) -> Caller:
    return Caller(backbone, LIMITS)


def test_there_are_many_and_all_are_different() -> None:
    assert len(ALL) >= 200
    assert len({(h.path, h.method, tuple(h.headers), tuple(h.chunks), h.hangs_up) for h in ALL}) >= 200
    assert len({hostile.name for hostile in ALL}) == len(ALL)


def test_the_bomb_is_one() -> None:
    content = dict(bombs())["png of 81 megapixels that holds them"]
    assert len(content) < 300_000


def test_the_watch_sees_what_it_is_to_see(tmp_path: Any) -> None:
    WATCH.found.clear()
    WATCH.is_on = True
    (tmp_path / "x").write_text("x")
    WATCH.is_on = False
    assert WATCH.found


@pytest.mark.parametrize("hostile", ALL, ids=lambda hostile: hostile.name)
def test_it_is_refused_and_harms_nothing(
    call: Caller, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    call.engine.asked.clear()
    WATCH.found.clear()
    WATCH.is_on = True
    try:
        status, sent, body = asyncio.run(send(call.app, hostile))
    finally:
        WATCH.is_on = False
    text = body.decode()
    assert status in hostile.statuses, text[:500]
    if hostile.path == "/v2" or hostile.path.startswith("/v2/"):
        assert set(json.loads(text)) == {"error"}
    else:
        assert sent[b"content-type"] == b"application/problem+json"
        assert set(json.loads(text)) == {"type", "title", "status", "detail"}
        assert json.loads(text)["status"] == status
    told = text
    for _, value in hostile.headers:
        # What a client said may come back to it, quoted; nothing else may tell of this machine.
        told = told.replace(repr(value.decode("latin-1")[:80])[1:-1], "")
    told = told.replace(json.dumps(repr(hostile.path.rpartition("/")[2]))[1:-1], "").replace(
        "/etc/passwd", ""
    )
    assert not _TELLTALE.search(told), told
    assert len(text) < 2000
    assert not WATCH.found
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not call.engine.asked, "it never reaches the engine"


def test_it_answers_after_all_of_them(call: Caller) -> None:
    for format_ in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        hostile = Hostile(name="none", statuses=(200,), headers=TO_BOLTS, chunks=[encode(format_)])
        status, _, body = asyncio.run(send(call.app, hostile))
        assert (status, json.loads(body)["label"]) == (200, "bad")
    call.engine.asked.clear()
