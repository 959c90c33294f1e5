"""The token that a client sends: where it is found, whom it is sent to, and what keeps it out of messages."""

import os
import re
from collections.abc import Generator

import httpx

__all__ = ["Bearer", "advice_for", "make_bearer", "without_token"]

_VARIABLE = "SHIP_TOKEN"
_SCHEME = "Bearer "
# A proxy in front may want tokens of its own.
_TOKEN = re.compile(r"[!-~]{1,4096}")


class Bearer(httpx.Auth):
    """Sends the token to one origin, and to no other: not even if somebody has redirects followed."""

    def __init__(self, token: str, url: httpx.URL) -> None:
        self._header = _SCHEME + token
        self._origin = url.scheme, url.host, url.port

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Called by httpx for each request."""
        if (request.url.scheme, request.url.host, request.url.port) == self._origin:
            request.headers["Authorization"] = self._header
        yield request


def make_bearer(token: str | None, url: str) -> Bearer | None:
    """Sends ``token``, or the one in SHIP_TOKEN if that is None, to ``url``; None if there is none.

    Raises:
        ValueError: It cannot be one; never says what it is, for that is a secret, or a part of one.
    """
    text = (os.environ.get(_VARIABLE, "") if token is None else token).strip()
    if not text:
        return None
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{_VARIABLE}: expected one token such as ship_..., without spaces or lines")
    return Bearer(text, httpx.URL(url))


def without_token(text: str, reply: httpx.Response) -> str:
    """``text`` without the token that was sent for ``reply``: a server of somebody else may repeat it."""
    token = reply.request.headers.get("Authorization", "").removeprefix(_SCHEME)
    return text.replace(token, "(the token)") if token else text


def advice_for(reply: httpx.Response) -> str:
    """What to do about a refusal of who asks; nothing for any other reply."""
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        is_sent = "Authorization" in reply.request.headers
        found = "a token was sent, but it is not good" if is_sent else "no token was sent"
        return f" ({found}; set {_VARIABLE} to one of this endpoint)"
    if reply.status_code == httpx.codes.FORBIDDEN:
        return f" (set {_VARIABLE} to a token that may; whoever runs the endpoint makes one)"
    return ""
