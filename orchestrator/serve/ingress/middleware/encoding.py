"""Request bodies with a Content-Encoding, decompressed as they arrive (RFC 9110, section 8.4).

Limits on bodies and on their bytes inside hold for what comes out: a body that grows a thousandfold is
refused where a plain one of its size would be, and is never held in memory beyond that.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.serve.ingress.problems import Problem

__all__ = ["ACCEPTED_ENCODINGS", "DecodeBody"]

ACCEPTED_ENCODINGS = ("gzip", "deflate", "identity")
_PIECE_BYTES = 64 << 10
_ABOUT_BODY = (b"content-encoding", b"content-length")


class DecodeBody:
    """ASGI middleware that decompresses request bodies; inside of it they are plain and have no known length.

    An encoding that is not accepted is refused when the body is read, so that 404 and 405 come first.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its body decompressed."""
        named = [] if scope["type"] != "http" else _encodings(Headers(scope=scope))
        if named:
            plain = [(name, value) for name, value in scope["headers"] if name not in _ABOUT_BODY]
            scope, receive = {**scope, "headers": plain}, _Decoded(named, receive).receive
        await self._app(scope, receive, send)


def _encodings(headers: Headers) -> list[str]:
    """Encodings of a body, in the order in which they were applied, without ``identity``."""
    said = [one.strip().lower() for text in headers.getlist("content-encoding") for one in text.split(",")]
    return [one for one in said if one not in ("", "identity")]


class _Decoded:
    """``receive`` of a request, with the decompressed body in pieces of at most 64 KiB."""

    def __init__(self, named: list[str], receive: Receive) -> None:
        self._named = named
        self._receive = receive
        self._messages = self._read()

    async def receive(self) -> Message:
        message = await anext(self._messages, None)
        return await self._receive() if message is None else message

    async def _read(self) -> AsyncIterator[Message]:
        inflater = _Inflater(_check(self._named))
        is_complete = False
        while not is_complete:
            message = await self._receive()
            if message["type"] != "http.request":
                yield message
                return
            is_complete = not message.get("more_body", False)
            for piece in inflater.pieces(message.get("body", b"")):
                yield {"type": "http.request", "body": piece, "more_body": True}
                # A short chunk can be many pieces; other requests have their turns between them.
                await asyncio.sleep(0)
        inflater.check_complete()
        yield {"type": "http.request", "body": b"", "more_body": False}


class _Inflater:
    """Decompressor of one body."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._begin = b""
        self._engine: zlib._Decompress | None = None

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What a chunk decompresses to, in pieces of at most 64 KiB; at least one, which may be empty.

        Raises:
            Problem: 400, the data are damaged, or go on after their end.
        """
        if self._engine is None:
            chunk = self._begin + chunk
            self._begin = chunk[:2]
            if len(chunk) < 2:
                yield b""
                return
            self._engine = zlib.decompressobj(_format(self._encoding, self._begin))
        is_more = True
        while is_more:
            try:
                piece = self._engine.decompress(chunk, _PIECE_BYTES)
            except zlib.error as error:
                raise self._corrupt("the data are damaged, or of another format") from error
            if self._engine.unused_data:
                raise self._corrupt("there are bytes after the end of the compressed data")
            chunk = self._engine.unconsumed_tail
            # A full piece can leave more behind inside of the decompressor.
            is_more = bool(chunk) or len(piece) == _PIECE_BYTES
            yield piece

    def check_complete(self) -> None:
        """Check that the compressed data have ended; a body without a byte is an empty one.

        Raises:
            Problem: 400, they have not.
        """
        if self._begin and (self._engine is None or not self._engine.eof):
            raise self._corrupt("the body ends before the compressed data do")

    def _corrupt(self, found: str) -> Problem:
        return Problem("body-corrupt", f"Content-Encoding {self._encoding}: {found}; compress the body again")


def _format(encoding: str, begin: bytes) -> int:
    """``wbits`` of zlib; ``deflate`` means zlib's format (RFC 1950), but some clients omit its header."""
    if encoding == "gzip":
        return 16 + zlib.MAX_WBITS
    is_zlib = begin[0] & 0x0F == 8 and int.from_bytes(begin) % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


def _check(named: list[str]) -> str:
    """The one encoding of a body: ``gzip`` or ``deflate``.

    Raises:
        Problem: 415, it is another, or there are several.
    """
    # RFC 9110, section 8.4.1.3: an old name of the same format.
    encoding = "gzip" if named == ["x-gzip"] else named[0]
    if len(named) > 1 or encoding not in ACCEPTED_ENCODINGS:
        raise Problem(
            "content-encoding-unsupported",
            f"Content-Encoding {', '.join(named)[:80]!r}: expected one of {', '.join(ACCEPTED_ENCODINGS)}; "
            "send the body so, or without compression",
            {"Accept-Encoding": ", ".join(ACCEPTED_ENCODINGS)},
        )
    return encoding
