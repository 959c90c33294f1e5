"""Who may come in before a body is read: so many requests and bytes, no task with more than its share.

Beyond that it is 429 with Retry-After, at the price of reading the headers. It knows no Ray and no engine.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.names import is_task_name
from orchestrator.serve.door import TASK_HEADER
from orchestrator.serve.options import Limits
from orchestrator.serve.paths import BATCH_PATH
from orchestrator.serve.problems import Problem, respond

__all__ = ["Admission", "AdmissionGate"]

# Task names have no capitals: requests that name none, or none that could exist, share this line.
_NO_TASK = "OTHERS"


class Admission:
    """What is inside an ingress. Of one event loop.

    Args:
        limits: How much may be inside.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside: dict[str, int] = {}
        self.num_inside = 0
        self.num_bytes = 0

    def enter(self, task: str, num_bytes: int) -> str | None:
        """Let a request in; else why not.

        A task may hold as many places as are free: one that floods the endpoint gets half of them, two get a
        third each, and whoever comes next finds some free (Choudhury and Hahne, "Dynamic queue length
        thresholds", 1998).
        """
        num_free = self._limits.max_inside - self.num_inside
        max_bytes = self._limits.max_inside_bytes
        if num_free <= 0 or (self.num_inside and self.num_bytes + num_bytes > max_bytes):
            return "as many requests are being answered as there is room for"
        if self._inside.get(task, 0) >= num_free:
            return f"task {task!r} has its share of the requests that are being answered"
        self._inside[task] = self._inside.get(task, 0) + 1
        self.num_inside += 1
        self.num_bytes += num_bytes
        return None

    def leave(self, task: str, num_bytes: int) -> None:
        """A request that was let in is done."""
        self._inside[task] -= 1
        self.num_inside -= 1
        self.num_bytes -= num_bytes
        if not self._inside[task]:
            del self._inside[task]


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
        task = _named_task(scope["path"], headers)
        is_batch = scope["path"] == BATCH_PATH
        cap = self._limits.max_batch_bytes if is_batch else self._limits.max_body_bytes
        num_bytes = _expected_bytes(headers, cap)
        refused = self._admission.enter(task, num_bytes)
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
            self._admission.leave(task, num_bytes)


def _named_task(path: str, headers: Headers) -> str:
    name = path.split("/")[3] if path.startswith("/v2/models/") else headers.get(TASK_HEADER, "")
    return name if is_task_name(name) else _NO_TASK


def _expected_bytes(headers: Headers, cap: int) -> int:
    """What the body may take; the door refuses what is larger."""
    declared = headers.get("content-length", "")
    is_told = declared.isascii() and declared.isdigit() and len(declared) < 20
    return min(int(declared), cap) if is_told else cap
