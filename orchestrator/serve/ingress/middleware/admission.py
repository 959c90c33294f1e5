"""Admission control: limits on concurrent requests and their bytes, shared between tokens, then tasks.

A request beyond the limits gets 429 with Retry-After before its body is read, and so does a task that the
engine has just refused for want of room, for as long as the engine said. It knows no Ray and no engine.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.names import is_task_name
from orchestrator.serve.ingress.headers import TASK_HEADER
from orchestrator.serve.ingress.middleware.auth import principal_in
from orchestrator.serve.ingress.problems import Problem, respond
from orchestrator.serve.options import Limits

__all__ = ["Admission", "AdmissionGate", "Busy", "Place", "announced_bytes"]


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
    """Concurrent requests and their bytes, of one account or of one task in it."""

    num_requests: int = 0
    num_bytes: int = 0


@dataclass(kw_only=True)
class Place:
    """Place of one admitted request.

    Attributes:
        account: Account of the request, see ``Principal.account``.
        task: Task that it is counted for within the account; None for all names that are not known to exist.
        num_bytes: Bytes of its body that have arrived.
    """

    account: str
    task: str | None
    num_bytes: int = 0


class Admission:
    """Concurrent requests of one ingress, in one event loop.

    Places and bytes go to accounts first, and within an account to its tasks: a client that makes up names
    takes nothing from other accounts, and a task that is asked often leaves room for its account's others.
    Each may hold as many places as are free: one that floods the endpoint gets half of them, two get a third
    each, and the next one finds some free; likewise for bytes (Choudhury and Hahne, "Dynamic queue length
    thresholds", 1998).

    Args:
        limits: Limits on requests and bytes.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._accounts: dict[str, _Share] = {}
        self._tasks: dict[tuple[str, str | None], _Share] = {}
        self._kept_out: dict[str, float] = {}
        # Tasks that an engine has answered for. Others share one place in the account: they need not exist.
        self._known: set[str] = set()
        self._all = _Share()

    @property
    def num_inside(self) -> int:
        """Requests that are being read, decoded or answered."""
        return self._all.num_requests

    @property
    def num_bytes(self) -> int:
        """Bytes of their bodies that have arrived."""
        return self._all.num_bytes

    def keep_out(self, task: str, seconds: float) -> None:
        """Refuse a task for some seconds: its requests would be read and decoded only to be refused."""
        now_s = self._clock()
        self._kept_out = {name: end_s for name, end_s in self._kept_out.items() if end_s > now_s}
        self._kept_out[task] = now_s + seconds

    def note_task(self, task: str, *, exists: bool) -> None:
        """Note whether the catalog has a task, as an engine says."""
        (self._known.add if exists else self._known.discard)(task)

    def enter(self, account: str, task: str | None, num_bytes: int = 0) -> Place | Busy:
        """Admit a request, or refuse it.

        Args:
            account: Its account.
            task: Task that it names; None for none, or for one that the account has no access to.
            num_bytes: Bytes that its body is announced to have; they count only as they arrive.
        """
        wait_s = self._kept_out.get(task or "", 0.0) - self._clock() if self._kept_out else 0.0
        if wait_s > 0.0:
            detail = f"Task {task!r} already uses its full share of the requests that wait for an engine"
            return Busy(detail=detail, wait_s=wait_s)
        place = Place(account=account, task=task if task in self._known else None)
        busy = self._refuse_request(place) or self._refuse_bytes(place, num_bytes)
        if busy is not None:
            return busy
        for share in self._shares(place):
            share.num_requests += 1
        return place

    def grow(self, place: Place, num_bytes: int) -> Busy | None:
        """Count bytes of a body that have arrived; returns the refusal if there is no room for them."""
        busy = self._refuse_bytes(place, num_bytes)
        if busy is None:
            place.num_bytes += num_bytes
            for share in self._shares(place):
                share.num_bytes += num_bytes
        return busy

    def leave(self, place: Place) -> None:
        """End a request that was admitted."""
        for share in self._shares(place):
            share.num_requests -= 1
            share.num_bytes -= place.num_bytes
        if not self._accounts[place.account].num_requests:
            del self._accounts[place.account]
        if not self._tasks[place.account, place.task].num_requests:
            del self._tasks[place.account, place.task]

    def _shares(self, place: Place) -> tuple[_Share, _Share, _Share]:
        account = self._accounts.setdefault(place.account, _Share())
        return self._all, account, self._tasks.setdefault((place.account, place.task), _Share())

    def _held(self, place: Place) -> tuple[_Share, _Share]:
        account = self._accounts.get(place.account, _Share())
        return account, self._tasks.get((place.account, place.task), _Share())

    def _refuse_request(self, place: Place) -> Busy | None:
        account, task = self._held(place)
        num_free = self._limits.max_inside - self._all.num_requests
        if num_free <= 0:
            return _no_room()
        if account.num_requests >= num_free:
            return _has_share(place.account)
        if task.num_requests >= num_free - account.num_requests:
            return _has_share(_name_of(place))
        return None

    def _refuse_bytes(self, place: Place, num_bytes: int) -> Busy | None:
        """Refuse bytes beyond a share; whatever is alone in an account, or in the endpoint, gets through."""
        account, task = self._held(place)
        # At the door the request is not counted yet.
        bytes_free = self._limits.max_inside_bytes - self._all.num_bytes
        if self._all.num_bytes > place.num_bytes and num_bytes > bytes_free:
            return _no_room()
        if account.num_bytes > place.num_bytes and account.num_bytes + num_bytes > bytes_free:
            return _has_share(place.account)
        in_account = bytes_free - account.num_bytes
        if task.num_bytes > place.num_bytes and task.num_bytes + num_bytes > in_account:
            return _has_share(_name_of(place))
        return None


class AdmissionGate:
    """ASGI middleware that refuses requests beyond the limits; GET and OPTIONS have no body and are free.

    A body's bytes count as they arrive, and one that stops arriving is refused after a while.
    """

    def __init__(self, app: ASGIApp, admission: Admission, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the request, or refuse it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        headers, principal = Headers(scope=scope), principal_in(scope)
        task = _named_task(scope["path"], headers)
        if task is not None and not principal.may_predict(task):
            task = None
        place = self._admission.enter(principal.account, task, announced_bytes(headers))
        if isinstance(place, Busy):
            reply = respond(scope["path"], self._problem(place))
            await reply(scope, receive, send)
            return
        try:
            await self._app(scope, self._counted(place, receive), send)
        finally:
            self._admission.leave(place)

    def _counted(self, place: Place, receive: Receive) -> Receive:
        """``receive`` that counts the body, and raises ``Problem`` for one beyond the limits."""
        is_complete = False

        async def receive_counted() -> Message:
            nonlocal is_complete
            if is_complete:
                return await receive()
            message = await self._receive_in_time(receive)
            is_complete = not message.get("more_body", False)
            busy = self._admission.grow(place, len(message.get("body", b"")))
            if busy is not None:
                raise self._problem(busy)
            return message

        return receive_counted

    async def _receive_in_time(self, receive: Receive) -> Message:
        timeout = asyncio.timeout(self._limits.body_idle_s)
        try:
            async with timeout:
                return await receive()
        except TimeoutError as error:
            if not timeout.expired():
                raise
            detail = f"no byte of the body arrived for {self._limits.body_idle_s:g} s; send the request again"
            raise Problem("body-late", detail, {"Connection": "close"}) from error

    def _problem(self, busy: Busy) -> Problem:
        retry_after = self._limits.retry_after(busy.wait_s)
        return Problem("busy", f"{busy.detail}; try again after {retry_after['Retry-After']} s", retry_after)


def announced_bytes(headers: Headers) -> int:
    """Bytes that the body is said to have; 0 if that is not said, or is not a number."""
    declared = headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else 0


def _no_room() -> Busy:
    return Busy(detail="the endpoint has no room for more concurrent requests")


def _has_share(name: str) -> Busy:
    return Busy(detail=f"{name} already uses its full share of concurrent requests")


def _name_of(place: Place) -> str:
    return f"{place.account} for new tasks" if place.task is None else f"Task {place.task!r}"


def _named_task(path: str, headers: Headers) -> str | None:
    name = path.split("/")[3] if path.startswith("/v2/models/") else headers.get(TASK_HEADER, "")
    return name if is_task_name(name) else None
