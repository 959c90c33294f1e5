"""HTTP connections of a load generator, which is to take little of the machine that it measures.

A request of 50 KB takes half of the CPU time that it takes aiohttp's client.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

__all__ = ["BrokenConnectionError", "Connections", "Reply"]


class BrokenConnectionError(Exception):
    """The server has closed the connection before its reply was whole."""


@dataclass
class Reply:
    """A reply.

    Attributes:
        status: HTTP status.
        headers: Its headers, names in title case.
        body: Its body.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class Connections:
    """Connections to one server that are kept for the next request; as many as are needed at a time.

    Args:
        url: URL of the server, to which paths are appended.
        timeout_s: Seconds for a reply.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        place = urlsplit(url)
        self._host, self._port, self._path = str(place.hostname), place.port or 80, place.path.rstrip("/")
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []

    async def post(self, path: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """Send a request and wait for its reply.

        Raises:
            BrokenConnectionError: There is none, or it broke.
            TimeoutError: No reply came in time.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"POST {self._path}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Length: {len(content)}\r\n{lines}\r\n"
        )
        connection = await self._take()
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await connection.ask(head.encode("latin-1"), content)
        except BaseException:
            connection.close()
            raise
        if connection.is_kept:
            self._idle.append(connection)
        else:
            connection.close()
        return reply

    def close(self) -> None:
        """Close all that are idle."""
        while self._idle:
            self._idle.pop().close()

    async def _take(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                return connection
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self._host, self._port
            )
        except OSError as error:
            raise BrokenConnectionError(str(error)) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time. The names of ``on_`` methods are httptools' own."""

    def __init__(self) -> None:
        self.is_closed = False
        self.is_kept = False
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: asyncio.Future[Reply] | None = None
        self._reply = Reply()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.is_closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(BrokenConnectionError("closed before the reply was whole"))

    async def ask(self, head: bytes, content: bytes) -> Reply:
        """Send a request and wait for its reply."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._reply, self.is_kept = Reply(), False
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.writelines([head, content])
        return await self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.decode("latin-1").title()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._reply.body += body

    def on_message_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()
        if self._reply.status == 100:
            return
        self.is_kept = self._parser.should_keep_alive()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._reply)
