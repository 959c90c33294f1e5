"""Graceful shutdown of an endpoint: new requests are refused, requests in progress finish."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.serve.ingress.problems import Problem, respond

__all__ = ["Drain", "DrainGate"]

_LOOK_S = 0.02
# A proxy in front tries another endpoint right away; a client waits for the next one to start.
_RETRY_AFTER_S = 5


class Drain:
    """Shutdown state of an ingress and its number of requests in progress, in one event loop."""

    def __init__(self) -> None:
        self.is_closing = False
        self.num_inside = 0

    async def close(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for the others; False if some took longer than ``timeout_s``."""
        self.is_closing = True
        try:
            async with asyncio.timeout(timeout_s):
                while self.num_inside:
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            return False
        return True


class DrainGate:
    """ASGI middleware that counts requests in progress, and answers 503 once the ingress is closing."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._drain.is_closing:
            headers = {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"}
            problem = Problem("closing", "this endpoint is shutting down", headers)
            refusal = respond(scope["path"], problem)
            await refusal(scope, receive, send)
        else:
            self._drain.num_inside += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._drain.num_inside -= 1
