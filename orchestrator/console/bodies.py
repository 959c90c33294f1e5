"""Whose bodies are read, in which charset, of which size and in which time. Pure ASGI.

FastAPI reads and parses a body before it asks what its route depends on. Of a stranger no byte is to be
taken: the gate asks who it is before, and the routes ask again.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi.concurrency import run_in_threadpool
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.console.access import SAFE_METHODS, check_request, identify, person_of
from orchestrator.console.sign_in import SIGN_IN
from orchestrator.serve.ingress.middleware.admission import Admission, Busy, Place, announced_bytes
from orchestrator.serve.options import Limits

__all__ = ["LIMITS", "SIGN_IN_LIMITS", "BodyGate", "check_charset"]

# The largest body is a picture for the page Try. What is under way may lie in files.
LIMITS = Limits(max_body_bytes=64 << 20, max_inside=32, max_inside_bytes=256 << 20, timeout_s=300.0)
# A token and an address to go on with, of a stranger.
SIGN_IN_LIMITS = Limits(max_body_bytes=8 << 10, max_inside=64, max_inside_bytes=512 << 10, timeout_s=10.0)
_UTF_8 = ("utf-8", "utf8")


class BodyGate:
    """ASGI middleware that lets bodies be read of people who are known, and small ones of the sign-in form.

    Places and bytes are shared between people, and between addresses for the sign-in, as an endpoint shares
    them (``Admission``). It raises errors where it refuses a request, also from ``receive``.

    Args:
        app: Application inside.
        limits: Limits on bodies of people: on each, on all under way, on pauses and on the time of each.
        sign_in_limits: Limits on bodies of the sign-in form.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits = LIMITS, sign_in_limits: Limits = SIGN_IN_LIMITS
    ) -> None:
        self._app = app
        self._people, self._strangers = _Door(limits), _Door(sign_in_limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            SignInNeeded: The sender is not signed in.
            HTTPException: 415, the charset is another than UTF-8; 413, the body is too large; 429, too many
                are under way; 408, it is late; or see ``check_request`` and ``identify``.
            StoreError: The tokens cannot be read.
        """
        # No route reads the body of any of these.
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        check_charset(request.headers)
        check_request(request)
        if scope["path"] == SIGN_IN:
            door, account = self._strangers, request.client.host if request.client else "unknown"
        else:
            await run_in_threadpool(identify, request)
            door, account = self._people, person_of(request).name or ""
        with door.enter(account, announced_bytes(request.headers)) as place:
            await self._app(scope, door.bounded(place, receive), send)


def check_charset(headers: Headers) -> None:
    """Return if a form's charset, as its parser will read it, is UTF-8 or not named.

    Starlette decodes fields with any codec of Python's that a client names, in the event loop; some take
    seconds for what fits into one field.

    Raises:
        HTTPException: 415.
    """
    _, options = parse_options_header(headers.get("content-type"))
    charset = options.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _UTF_8:
        raise HTTPException(415, f"Content-Type: expected the charset utf-8 or none, found {charset[:40]!r}.")


class _Door:
    """Limits on bodies of one kind, and those that are under way."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._admission = limits, Admission(limits)

    @contextmanager
    def enter(self, account: str, num_bytes: int) -> Iterator[Place]:
        """Place of one request until it is answered.

        Args:
            account: Whom it counts for.
            num_bytes: Bytes that its body is announced to have.

        Raises:
            HTTPException: 413 or 429.
        """
        self._check_size(num_bytes)
        place = self._admission.enter(account, None, num_bytes)
        if isinstance(place, Busy):
            raise self._busy()
        try:
            yield place
        finally:
            self._admission.leave(place)

    def bounded(self, place: Place, receive: Receive) -> Receive:
        """``receive`` that counts the body, and raises an error for one beyond the limits."""
        end_s = asyncio.get_running_loop().time() + self._limits.timeout_s
        is_complete = False

        async def receive_bounded() -> Message:
            nonlocal is_complete
            if is_complete:
                return await receive()
            message = await self._receive_in_time(receive, end_s)
            is_complete = not message.get("more_body", False)
            num_bytes = len(message.get("body", b""))
            self._check_size(place.num_bytes + num_bytes)
            if self._admission.grow(place, num_bytes) is not None:
                raise self._busy()
            return message

        return receive_bounded

    async def _receive_in_time(self, receive: Receive, end_s: float) -> Message:
        idle_s = self._limits.body_idle_s
        timeout = asyncio.timeout_at(min(end_s, asyncio.get_running_loop().time() + idle_s))
        try:
            async with timeout:
                return await receive()
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise HTTPException(
                408,
                f"The body is late: expected more of it within {idle_s:g} s, and all of it within "
                f"{self._limits.timeout_s:g} s.",
                {"Connection": "close"},
            ) from error

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._limits.max_body_bytes:
            raise HTTPException(413, f"Expected at most {self._limits.max_body_bytes} bytes.")

    def _busy(self) -> HTTPException:
        retry_after = self._limits.retry_after()
        return HTTPException(429, "Too many requests with a body are under way: try again.", retry_after)
