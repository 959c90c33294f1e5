"""Who may come in before a body is read: so many requests and bytes, no task with more than its share.

Beyond that it is 429 with Retry-After, at the price of reading the headers. It knows no Ray and no engine.
"""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.names import is_task_name
from orchestrator.serve.auth import Principal, principal_in
from orchestrator.serve.door import TASK_HEADER
from orchestrator.serve.options import Limits
from orchestrator.serve.paths import BATCH_PATH
from orchestrator.serve.problems import Problem, respond

__all__ = ["Admission", "AdmissionGate"]


@dataclass
class _Share:
    """What is inside on one account."""

    num_requests: int = 0
    num_bytes: int = 0


class Admission:
    """What is inside an ingress. Of one event loop.

    Args:
        limits: How much may be inside.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside: dict[str, _Share] = {}
        self.num_inside = 0
        self.num_bytes = 0

    def enter(self, account: str, num_bytes: int) -> str | None:
        """Let a request in; else why not.

        An account, such as a task, may hold as many places as are free: one that floods the endpoint gets
        half of them, two get a third each, and whoever comes next finds some free; of bytes likewise
        (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
        """
        num_free = self._limits.max_inside - self.num_inside
        bytes_free = self._limits.max_inside_bytes - self.num_bytes
        held = self._inside.get(account, _Share())
        if num_free <= 0 or (self.num_inside and num_bytes > bytes_free):
            return "as many requests are being answered as there is room for"
        if held.num_requests >= num_free or (held.num_requests and held.num_bytes + num_bytes > bytes_free):
            return f"{account} has its share of the requests that are being answered"
        self._inside[account] = _Share(held.num_requests + 1, held.num_bytes + num_bytes)
        self.num_inside += 1
        self.num_bytes += num_bytes
        return None

    def leave(self, account: str, num_bytes: int) -> None:
        """A request that was let in is done."""
        held = self._inside[account]
        held.num_requests -= 1
        held.num_bytes -= num_bytes
        self.num_inside -= 1
        self.num_bytes -= num_bytes
        if not held.num_requests:
            del self._inside[account]


class AdmissionGate:
    """ASGI middleware that turns away whom ``Admission`` does not let in. GET is free: it brings no body."""

    def __init__(self, app: ASGIApp, admission: Admission, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or turn it away."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        account = _account(principal_in(scope), _named_task(scope["path"], headers))
        is_batch = scope["path"] == BATCH_PATH
        cap = self._limits.max_batch_bytes if is_batch else self._limits.max_body_bytes
        num_bytes = _expected_bytes(headers, cap)
        refused = self._admission.enter(account, num_bytes)
        if refused is not None:
            retry_after = {"Retry-After": str(self._limits.retry_after_s)}
            detail = f"{refused}; try again after {self._limits.retry_after_s} s"
            problem = Problem(429, "busy", "Too many requests", detail, retry_after)
            reply = respond(scope["path"], problem)
            await reply(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._admission.leave(account, num_bytes)


def _named_task(path: str, headers: Headers) -> str | None:
    name = path.split("/")[3] if path.startswith("/v2/models/") else headers.get(TASK_HEADER, "")
    return name if is_task_name(name) else None


def _account(principal: Principal, task: str | None) -> str:
    """On what a request is booked: nobody takes the places of a task that he may not ask."""
    if task is not None and principal.may_predict(task):
        return f"task {task!r}"
    return f"token {principal.name!r}, of requests that name no task of its own in a header,"


def _expected_bytes(headers: Headers, cap: int) -> int:
    """What the body may take; the door refuses what is larger."""
    declared = headers.get("content-length", "")
    is_told = declared.isascii() and declared.isdigit() and len(declared) < 20
    return min(int(declared), cap) if is_told else cap
