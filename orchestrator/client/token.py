"""Bearer token of a client: read from the environment, sent to one origin, kept out of messages."""

import os
import re
from collections.abc import Generator

import httpx

__all__ = ["Bearer", "advice_for", "make_basic", "make_bearer", "without_token"]

_VARIABLE = "SHIP_TOKEN"
_SCHEME = "Bearer "
# A proxy in front may want tokens of its own.
_TOKEN = re.compile(r"[!-~]{1,4096}")


class Bearer(httpx.Auth):
    """Authorization header for one origin alone, also where redirects are followed."""

    def __init__(self, token: str, url: httpx.URL) -> None:
        self._header = _SCHEME + token
        self._origin = url.scheme, url.host, url.port

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Called by httpx for each request."""
        if (request.url.scheme, request.url.host, request.url.port) == self._origin:
            request.headers["Authorization"] = self._header
        yield request


def make_bearer(token: str | None, url: str) -> Bearer | None:
    """Authorization by ``token``, or by SHIP_TOKEN if that is None; None if both are empty.

    Raises:
        ValueError: The token is malformed; the message never shows it.
    """
    text = (os.environ.get(_VARIABLE, "") if token is None else token).strip()
    if not text:
        return None
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{_VARIABLE}: expected one token such as ship_..., without spaces or lines")
    return Bearer(text, httpx.URL(url))


def make_basic(url: str) -> httpx.BasicAuth | None:
    """Authorization by the user and password of a URL; None if it has none."""
    parsed = httpx.URL(url)
    return httpx.BasicAuth(parsed.username, parsed.password) if parsed.userinfo else None


def without_token(text: str, reply: httpx.Response) -> str:
    """``text`` without the token that was sent for ``reply``: a foreign server may repeat it."""
    token = reply.request.headers.get("Authorization", "").removeprefix(_SCHEME)
    return text.replace(token, "(the token)") if token else text


def advice_for(reply: httpx.Response) -> str:
    """Advice on a reply of status 401 or 403; empty for any other."""
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        is_sent = "Authorization" in reply.request.headers
        found = "the token that was sent is not valid" if is_sent else "no token was sent"
        return f" ({found}; set {_VARIABLE} to a token of this endpoint)"
    if reply.status_code == httpx.codes.FORBIDDEN:
        return f" (set {_VARIABLE} to a token with this permission; the endpoint's operator makes one)"
    return ""
