"""Cross-origin resource sharing: which web pages may read replies, by the origins that the operator names."""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ANY_ORIGIN", "Cors"]

ANY_ORIGIN = "*"
_MAX_AGE_S = 600
_ASKED_METHOD = "access-control-request-method"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding, Ship-Task, Ship-Version, "
    "Ship-Key, Ship-Timeout, Ship-Keep, X-Request-ID",
    "Access-Control-Max-Age": str(_MAX_AGE_S),
}
_EXPOSED = (
    "Ship-Task, Ship-Version, Ship-Digest, Ship-Backbone, Ship-Precision, X-Request-ID, Retry-After, Allow"
)


class Cors:
    """ASGI middleware that lets pages of some origins read replies (the Fetch standard, "CORS protocol").

    A preflight of such a page, which has no token, is answered here; one of another page gets the answer that
    any client gets, without a header of CORS. Cookies are never allowed: there are none.

    Args:
        app: Application inside.
        origins: Origins such as ``https://plant.example``, or ``*``; without any the headers are never sent.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer a preflight."""
        if scope["type"] != "http" or not self._origins:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = self._allowed(headers)

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(MutableHeaders(scope=message), origin)
            await send(message)

        if origin is not None and scope["method"] == "OPTIONS" and _ASKED_METHOD in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send_shared)
        else:
            await self._app(scope, receive, send_shared)

    def _allowed(self, headers: Headers) -> str | None:
        """What the reply calls the page that asks; None for one that is not allowed, or no page."""
        sent = headers.getlist("origin")
        if ANY_ORIGIN in self._origins:
            return ANY_ORIGIN if sent else None
        return sent[0] if len(sent) == 1 and sent[0] in self._origins else None

    def _add(self, headers: MutableHeaders, origin: str | None) -> None:
        if ANY_ORIGIN not in self._origins:
            # A cache must not give the reply for one page to another.
            headers.add_vary_header("Origin")
        if origin is not None:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED
