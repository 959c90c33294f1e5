"""Admission control: limits on concurrent requests and their bytes, shared between tasks and tokens.

A request beyond the limits gets 429 with Retry-After before its body is read, and so does a task that the
engine has just refused for want of room, for as long as the engine said. It knows no Ray and no engine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.names import is_task_name
from orchestrator.serve.ingress.headers import TASK_HEADER
from orchestrator.serve.ingress.middleware.auth import Principal, principal_in
from orchestrator.serve.ingress.paths import BATCH_PATH
from orchestrator.serve.ingress.problems import Problem, respond
from orchestrator.serve.options import Limits

__all__ = ["Admission", "AdmissionGate", "Busy", "choose_account"]


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Refusal of a request.

    Attributes:
        detail: Reason, for the client.
        wait_s: Seconds until another try can succeed; 0 if unknown.
    """

    detail: str
    wait_s: float = 0.0


@dataclass
class _Share:
    """Concurrent requests of one account, which is a task or a token."""

    num_requests: int = 0
    num_bytes: int = 0


class Admission:
    """Concurrent requests of one ingress, in one event loop.

    Args:
        limits: Limits on requests and bytes.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._inside: dict[str, _Share] = {}
        self._kept_out: dict[str, float] = {}
        self.num_inside = 0
        self.num_bytes = 0

    def keep_out(self, task: str, seconds: float) -> None:
        """Refuse a task for some seconds: its requests would be read and decoded only to be refused."""
        now_s = self._clock()
        self._kept_out = {account: end_s for account, end_s in self._kept_out.items() if end_s > now_s}
        self._kept_out[_account_of(task)] = now_s + seconds

    def enter(self, account: str, num_bytes: int) -> Busy | None:
        """Admit a request, or return its refusal.

        An account may hold as many places as are free: one that floods the endpoint gets half of them, two
        get a third each, and the next one finds some free; likewise for bytes (Choudhury and Hahne, "Dynamic
        queue length thresholds", 1998).
        """
        wait_s = self._kept_out.get(account, 0.0) - self._clock() if self._kept_out else 0.0
        if wait_s > 0.0:
            return Busy(
                detail=f"{account} already uses its full share of the requests that wait for an engine",
                wait_s=wait_s,
            )
        num_free = self._limits.max_inside - self.num_inside
        bytes_free = self._limits.max_inside_bytes - self.num_bytes
        held = self._inside.get(account, _Share())
        if num_free <= 0 or (self.num_inside and num_bytes > bytes_free):
            return Busy(detail="the endpoint has no room for more concurrent requests")
        if held.num_requests >= num_free or (held.num_requests and held.num_bytes + num_bytes > bytes_free):
            return Busy(detail=f"{account} already uses its full share of concurrent requests")
        self._inside[account] = _Share(held.num_requests + 1, held.num_bytes + num_bytes)
        self.num_inside += 1
        self.num_bytes += num_bytes
        return None

    def leave(self, account: str, num_bytes: int) -> None:
        """End a request that was admitted."""
        held = self._inside[account]
        held.num_requests -= 1
        held.num_bytes -= num_bytes
        self.num_inside -= 1
        self.num_bytes -= num_bytes
        if not held.num_requests:
            del self._inside[account]


class AdmissionGate:
    """ASGI middleware that refuses requests beyond the limits; GET has no body and is free."""

    def __init__(self, app: ASGIApp, admission: Admission, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the request, or refuse it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        account = choose_account(principal_in(scope), _named_task(scope["path"], headers))
        is_batch = scope["path"] == BATCH_PATH
        cap = self._limits.max_batch_bytes if is_batch else self._limits.max_body_bytes
        num_bytes = _expected_bytes(headers, cap)
        busy = self._admission.enter(account, num_bytes)
        if busy is not None:
            retry_after = self._limits.retry_after(busy.wait_s)
            detail = f"{busy.detail}; try again after {retry_after['Retry-After']} s"
            problem = Problem("busy", detail, retry_after)
            reply = respond(scope["path"], problem)
            await reply(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._admission.leave(account, num_bytes)


def _account_of(task: str) -> str:
    return f"Task {task!r}"


def _named_task(path: str, headers: Headers) -> str | None:
    name = path.split("/")[3] if path.startswith("/v2/models/") else headers.get(TASK_HEADER, "")
    return name if is_task_name(name) else None


def choose_account(principal: Principal, task: str | None) -> str:
    """Account of a request: its task if the token has access to it, else its token."""
    if task is not None and principal.may_predict(task):
        return _account_of(task)
    return f"Token {principal.name!r}"


def _expected_bytes(headers: Headers, cap: int) -> int:
    """Most bytes that the body can have; the route refuses a larger one."""
    declared = headers.get("content-length", "")
    is_told = declared.isascii() and declared.isdigit() and len(declared) < 20
    return min(int(declared), cap) if is_told else cap
