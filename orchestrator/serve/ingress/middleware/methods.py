"""HEAD and OPTIONS for every route, which itself has only GET or POST (RFC 9110, 9.3.2 and 9.3.7)."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Methods"]


class Methods:
    """ASGI middleware that answers HEAD as GET without the body, and OPTIONS with 204 and ``Allow``.

    Inside of it a HEAD request is a GET request, so that the same rules of access hold. The router refuses
    OPTIONS with 405, which names the methods of the path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        is_bodiless = method == "HEAD"

        async def send_worded(message: Message) -> None:
            nonlocal is_bodiless
            if message["type"] == "http.response.start":
                if message["status"] == 405:
                    message = _name_methods(message, is_asked=method == "OPTIONS")
                    is_bodiless = is_bodiless or message["status"] == 204
                await send(message)
            elif not is_bodiless:
                await send(message)
            elif not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        await self._app(inner, receive, send_worded)


def _name_methods(refusal: Message, *, is_asked: bool) -> Message:
    """A reply 405 with all methods of the path; 204 if the client asked for them."""
    headers = MutableHeaders(raw=list(refusal["headers"]))
    own = [name.strip() for name in headers.get("allow", "").split(",") if name.strip()]
    headers["Allow"] = ", ".join([*own, *(["HEAD"] if "GET" in own else []), "OPTIONS"])
    if is_asked:
        del headers["Content-Length"], headers["Content-Type"]
    return {**refusal, "status": 204 if is_asked else 405, "headers": headers.raw}
