"""Connections of the load generator: kept for the next request, and broken ones said to be so."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.benchmarks.serve.connections import BrokenConnectionError, Connections, Reply


class _Handler(BaseHTTPRequestHandler):
    """Says from which port it was asked, and by what."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/break":
            self.close_connection = True
            return
        said = f"{self.client_address[1]} {self.headers['Ship-Task']} {len(content)}".encode()
        self.send_response(429 if self.path == "/busy" else 200)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("ship-version", "3")
        if self.path == "/last":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(url: str, *paths: str) -> list[Reply | None]:
    async def run() -> list[Reply | None]:
        replies: list[Reply | None] = []
        with closing(Connections(url, 60.0)) as connections:
            for path in paths:
                try:
                    replies.append(await connections.post(path, b"x" * 100_000, {"Ship-Task": "caps"}))
                except BrokenConnectionError:
                    replies.append(None)
        return replies

    return asyncio.run(run())


def test_a_connection_is_kept_unless_the_server_closes_it(url: str) -> None:
    first, busy, last, another = ask(url, "/", "/busy", "/last", "/")
    assert first is not None
    assert busy is not None
    assert last is not None
    assert another is not None
    assert [first.status, busy.status, last.status] == [200, 429, 200]
    assert first.headers["Ship-Version"] == "3"
    port, task, length = first.body.decode().split()
    assert (task, length) == ("caps", "100000")
    assert [reply.body.decode().split()[0] == port for reply in (busy, last, another)] == [True, True, False]


def test_a_path_is_below_that_of_the_url(url: str) -> None:
    (busy,) = ask(f"{url}/bu", "sy")
    assert busy is not None
    assert busy.status == 429


def test_a_reply_that_does_not_come_is_an_error_and_the_next_one_is_not(url: str) -> None:
    broken, whole = ask(url, "/break", "/")
    assert broken is None
    assert whole is not None
    assert whole.status == 200


def test_a_port_where_nothing_listens_is_an_error(url: str) -> None:
    assert ask("http://127.0.0.1:1", "/") == [None]
