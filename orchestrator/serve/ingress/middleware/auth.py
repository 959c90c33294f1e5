"""Authentication and authorization of requests: ``Authorization: Bearer``, checked before a body is read.

Only the route knows the tasks of a request (a batch names them in its body), so that it checks access to them
with ``principal_of(request)``. It knows no Ray and no store.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.problems import Problem, respond
from orchestrator.store.documents.tokens import Scope as TokenScope
from orchestrator.store.documents.tokens import Tokens, parse_token

__all__ = ["KnownTokens", "Principal", "RequireToken", "principal_in", "principal_of"]

_PRINCIPAL = "ship.principal"
# For probes, which have no token. Readiness tells nothing about any task.
_OPEN = frozenset({"/healthz", "/v2/health/live"})
_OPEN_ONCE_READY = frozenset({"/readyz", "/v2/health/ready"})
# Says why all else is refused, and how nearly it is.
_METRICS = "/metrics"
_RETRY_AFTER_S = 2
_LOG_EVERY_S = 1.0
_log = logging.getLogger(__name__)


class KnownTokens(Protocol):
    """Source of the known tokens, such as a ``TokenFollower``."""

    @property
    def tokens(self) -> Tokens | None:
        """Known tokens; None before the first read."""
        ...

    @property
    def is_stale(self) -> bool:
        """Whether they have not been read for too long."""
        ...


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Authenticated sender of a request.

    Attributes:
        name: Name of the token.
        scope: Scope of the token.
        account: Account that places and bytes are counted by, as in messages: the token; without access
            control the client's address.
    """

    name: str
    scope: TokenScope
    account: str

    def may_predict(self, task: str) -> bool:
        """Whether the token has access to a task."""
        return self.scope.may_predict(task)

    @property
    def task_patterns(self) -> tuple[str, ...]:
        """Patterns of the tasks that the token has access to."""
        return ("*",) if self.scope.admin else self.scope.predict

    def check_may_predict(self, task: str) -> None:
        """Return if the token has access to a task, which need not exist.

        Raises:
            Problem: 403, it has no access.
        """
        if not self.may_predict(task):
            patterns = ", ".join(self.scope.predict) or "none"
            raise _not_allowed(f"token {self.name!r} has no access to task {task!r}; its tasks: {patterns}")

    def check_may_read_metrics(self) -> None:
        """Return if the token has access to ``/metrics``.

        Raises:
            Problem: 403, it has no access.
        """
        if not self.scope.may_read_metrics():
            raise _not_allowed(
                f"token {self.name!r} has no access to /metrics, which takes --metrics or --admin"
            )


def principal_of(request: Request) -> Principal:
    """Sender of a request that ``RequireToken`` has let in."""
    return principal_in(request.scope)


def principal_in(scope: Scope) -> Principal:
    """The same for middleware inside ``RequireToken``."""
    principal: Principal = scope[_PRINCIPAL]
    return principal


class RequireToken:
    """ASGI middleware that refuses requests without a valid token.

    Args:
        app: Application inside.
        known: Known tokens; None turns access control off.
        clock: Clock, in seconds since the epoch.
        monotonic: Monotonic clock of the log of refused tokens, in seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        known: KnownTokens | None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._known = known
        self._clock = clock
        self._refusals = _RefusalLog(monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            # There are no other routes; one of another protocol needs its own check here.
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                self._admit(scope)
            except Problem as problem:
                await respond(scope["path"], problem)(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        path = scope["path"]
        if self._known is None:
            scope[_PRINCIPAL] = _anonymous(scope, TokenScope(admin=True))
            return
        if path in _OPEN:
            scope[_PRINCIPAL] = _anonymous(scope, TokenScope())
            return
        tokens = self._known.tokens
        if tokens is None:
            raise _not_ready()
        if self._known.is_stale and path != _METRICS:
            raise _too_old()
        is_open = path in _OPEN_ONCE_READY
        scope[_PRINCIPAL] = _anonymous(scope, TokenScope()) if is_open else self._identify(scope, tokens)

    def _identify(self, scope: Scope, tokens: Tokens) -> Principal:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if not values:
            raise _missing()
        sent = _read_bearer(values[0]) if len(values) == 1 else None
        if sent is None:
            raise _invalid("the header is not one `Bearer ship_...` as `ship token create` printed it")
        token_id, secret = sent
        found = tokens.find(token_id)
        if found is None or not found[2].is_made_of(secret):
            self._refusals.add(token_id, "is not known" if found is None else "came with a wrong secret")
            raise _invalid("the token is unknown, expired or revoked")
        name, token, kept = found
        if not kept.is_live(self._clock()):
            self._refusals.add(token_id, f"({name}) has expired")
            raise _invalid("the token is unknown, expired or revoked")
        note(Request(scope), token=token_id)
        return Principal(name=name, scope=token.scope, account=f"Token {name!r}")


def _anonymous(scope: Scope, allowed: TokenScope) -> Principal:
    client = scope.get("client")
    return Principal(name="anonymous", scope=allowed, account=f"Client {client[0] if client else 'unknown'}")


class _RefusalLog:
    """Log of refused tokens, at most one line a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_s = -math.inf
        self._num_untold = 0

    def add(self, token_id: str, why: str) -> None:
        now_s = self._clock()
        if now_s - self._last_s < _LOG_EVERY_S:
            self._num_untold += 1
            return
        untold = f" ({self._num_untold} more refusals since the last such line)" if self._num_untold else ""
        _log.warning("refused: token %s %s%s", token_id, why, untold)
        self._last_s, self._num_untold = now_s, 0


def _read_bearer(value: bytes) -> tuple[str, str] | None:
    """Id and secret; latin-1 decodes every byte, so that no header makes this fail."""
    scheme, _, text = value.decode("latin-1").partition(" ")
    return parse_token(text.strip(" ")) if scheme.lower() == "bearer" else None


def _missing() -> Problem:
    return Problem(
        "token-missing",
        "expected a header `Authorization: Bearer ship_...`; the operator of this endpoint makes a token "
        "with `ship token create`",
        {"WWW-Authenticate": "Bearer"},
    )


def _invalid(found: str) -> Problem:
    return Problem(
        "token-invalid",
        f"{found}; the operator of this endpoint makes one with `ship token create` or `ship token rotate`",
        {"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )


def _not_allowed(detail: str) -> Problem:
    return Problem(
        "not-allowed",
        f"{detail}; use another token",
        {"WWW-Authenticate": 'Bearer error="insufficient_scope"'},
    )


def _too_old() -> Problem:
    return Problem(
        "tokens-too-old",
        "the store of the tokens has not been read for longer than --token-grace allows; requests are let in "
        "again once it is",
        {"Retry-After": str(_RETRY_AFTER_S)},
    )


def _not_ready() -> Problem:
    return Problem(
        "not-ready",
        "the tokens have not been read yet",
        {"Retry-After": str(_RETRY_AFTER_S)},
    )
